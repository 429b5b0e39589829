"""Vendor files of a small accelerator, without a bundle."""

from types import SimpleNamespace

from hwgen.vendor.files import write_vendor_files
from rtl_templates.array_spec import EncoderSpec, PoolStorage
from tests.rtl_templates.accelerator_reference import small_spec

CONFIGURATION = 0x12345678
SPEC = small_spec(configuration=CONFIGURATION, storage=PoolStorage.RAM,
                  encoder=EncoderSpec(side_words=64, columns=4, key_columns=4, tokens=16))


def write_files(directory, device=None):
    """Vendor files of :data:`SPEC` for a device, in a new directory."""
    directory.mkdir()
    write_vendor_files(SimpleNamespace(configuration_hash=f"{CONFIGURATION:08x}" + 56 * "0", device=device,
                                       spec=SPEC), directory)
    return directory
