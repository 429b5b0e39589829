"""Files for open tools: a FuseSoC core, edalize projects, and a LiteX module."""

from dataclasses import dataclass

from hwgen.vendor.amd import amd_device
from hwgen.vendor.names import LIBRARY, VENDOR, VERSION
from hwgen.vendor.top_level import Bus

QUARTUS_FAMILY, QUARTUS_DEVICE = "Arria 10", "10AX115S2F45I1SG"
"""What FuseSoC and edalize synthesize for with Quartus, as an example."""

FILES = {
    "accelerator.core": "fusesoc/accelerator.core",
    "litex/accelerator_litex.py": "litex/accelerator_litex.py",
    **{f"edalize/{name}": f"edalize/{name}"
       for name in ("vivado.eda.yml", "quartus.eda.yml", "make_project.py")},
}
"""Path in the build, and template."""


@dataclass(frozen=True, kw_only=True)
class OpenToolsContext:
    """Variables of the templates in ``rtl_templates/fusesoc``, ``edalize`` and ``litex``."""

    generated: str
    configuration: str
    vendor: str
    library: str
    version: str
    part: str
    quartus_family: str
    quartus_device: str
    buses: tuple[Bus, ...]


def open_tools_context(plan, top, generated):
    """Variables for a plan and its TopLevel."""
    return OpenToolsContext(
        generated=generated, configuration=plan.configuration_hash[:8], vendor=VENDOR, library=LIBRARY,
        version=VERSION, part=amd_device(plan).part, quartus_family=QUARTUS_FAMILY,
        quartus_device=QUARTUS_DEVICE, buses=top.buses)
