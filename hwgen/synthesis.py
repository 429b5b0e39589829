"""Resources of generated Verilog, as Yosys synthesizes it for Xilinx families. No vendor tool needed.

Yosys places nothing and knows no LUT packing, so the number of *LUT sites* is our count (see
:class:`Resources`); it has not been checked against a vendor tool. Yosys packs registers and sums into
the DSPs of family xc7, but on xcup only the bare multiplier; instantiated DSP48E2 stay as they are.

Modules that a large design repeats, the units of an array, are synthesized once and counted as often as
they are there; everything else is flattened, so that Yosys optimizes across its modules. Only what is too
large for one run of Yosys is divided further (:meth:`hwgen.equal_modules.Design.parts`).
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

from compressor.text_file import StrPath
from hwgen.equal_modules import merge_equal_modules
from hwgen.toolchain import run_tool

FAMILIES = ("xcup", "xc7")
"""UltraScale+ (DSP48E2) and 7 series (DSP48E1)."""

READ_PRIMITIVES = "read_verilog -lib +/xilinx/cells_xtra.v"
"""Yosys command for the ports of the vendor's primitives that generated Verilog can instantiate."""

_MEMORY_LUTS = {
    "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1, "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2,
    "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4, "RAM256X1D": 8, "RAM512X1S": 8, "RAM32M": 4, "RAM64M": 4,
    "RAM32M16": 8, "RAM64M8": 8,
}
_BRAM36 = {"RAMB36E1": 1.0, "RAMB36E2": 1.0, "RAMB18E1": 0.5, "RAMB18E2": 0.5}
_LUT6_2_INPUTS = 5
_INITIAL_ZEROS = re.compile(r"^  initial begin : \w+_zeros\n.*?^  end\n", re.MULTILINE | re.DOTALL)
"""What :func:`hwgen.verilog.tidy` writes for the zeros of a memory; Yosys takes minutes to run such loops."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a netlist uses.

    Parameters
    ----------
    lut_cells : int
        LUT1 to LUT6 (and inverter) cells.
    lut_memory : int
        LUTs used as memory or shift register.
    lut_sites : int
        Physical LUT6 sites, ``lut_memory`` included: one per bit of a carry chain, which also holds the
        LUT of the chain's data input if both need at most 5 inputs together; one per other LUT (two small
        LUTs that could share a site count twice, so this is an upper estimate).
    ff, dsp, carry : int
        Flip-flops, DSP slices, CARRY4 cells.
    bram36 : float
        Block RAMs of 36 kbit; half ones count 0.5.
    uram : int
        UltraRAMs of 288 kbit.
    """

    lut_cells: int
    lut_memory: int
    lut_sites: int
    ff: int
    dsp: int
    bram36: float
    carry: int
    uram: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in _COUNTS})

    def __mul__(self, copies: int) -> Self:
        return type(self)(**{name: getattr(self, name) * copies for name in _COUNTS})


_COUNTS = tuple(field.name for field in fields(Resources))


def synthesize(verilog_files: Iterable[StrPath], top: str, family: str, *, use_dsp: bool = True,
               use_uram: bool = False) -> Resources:
    """Synthesize Verilog with Yosys and count what it uses.

    Parameters
    ----------
    verilog_files : list of path
    top : str
        Name of the top module.
    family : str
        "xcup" or "xc7".
    use_dsp : bool
        False: multipliers in LUTs.
    use_uram : bool
        Whether the device has UltraRAM; Yosys puts large memories there.

    Returns
    -------
    Resources

    Raises
    ------
    ValueError
        If the family is none of :data:`FAMILIES`.
    ToolError
        If Yosys is missing or fails.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be {' or '.join(FAMILIES)}, not {family!r}")
    design = merge_equal_modules("".join(Path(file).read_text() for file in verilog_files))
    options = ("" if use_dsp else " -nodsp") + (" -uram" if use_uram else "")
    modules: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "source.v").write_text(_INITIAL_ZEROS.sub("", design.text))
        for part in design.parts(top):
            others = " ".join(f"\\{name}" for name in modules)
            # Purged first: Amaranth's names of struct members, like "word[0]", clash with those that Yosys'
            # technology mapper gives to the bits of a port.
            script = (f"{READ_PRIMITIVES}; read_verilog source.v; {f'blackbox {others}; ' if others else ''}"
                      f"hierarchy -check -top {part}; proc; flatten; opt_clean -purge; "
                      f"synth_xilinx -family {family} -top {part} -flatten -noiopad -noclkbuf{options}; "
                      f"write_json netlist.json")
            run_tool("yosys", ["-q", "-p", script], cwd=directory)
            netlist = json.loads((Path(directory) / "netlist.json").read_text())
            name = part.removeprefix("\\")
            modules[name] = netlist["modules"][name]
    return count_design(modules, top)


def count_design(modules, top):
    """Resources of ``top`` with all parts below it; ``modules``: the module of each in Yosys' JSON."""
    total = count_resources(modules[top])
    for kind, copies in Counter(cell["type"] for cell in modules[top]["cells"].values()).items():
        if kind in modules:
            total += count_design(modules, kind) * copies
    return total


def count_resources(module):
    """Resources of one module of a Yosys JSON netlist, without those of the modules that it instantiates."""
    types = Counter(cell["type"] for cell in module["cells"].values())
    luts = {name: cell for name, cell in module["cells"].items() if _is_lut(cell["type"])}
    memory = sum(_MEMORY_LUTS.get(kind, 0) * number for kind, number in types.items())
    carry_bits, absorbed = _carry_sites(module, luts)
    return Resources(
        lut_cells=len(luts), lut_memory=memory, lut_sites=carry_bits + len(luts) - absorbed + memory,
        ff=sum(number for kind, number in types.items() if kind in ("FDRE", "FDSE", "FDCE", "FDPE")),
        dsp=sum(number for kind, number in types.items() if kind.startswith("DSP48")),
        bram36=sum(_BRAM36.get(kind, 0) * number for kind, number in types.items()),
        carry=types["CARRY4"], uram=types["URAM288"])


def _is_lut(kind):
    return kind == "INV" or (kind.startswith("LUT") and kind[3:].isdigit())


def _carry_sites(module, luts):
    """Carry bits in use, and LUTs that sit in the sites of those bits."""
    drivers = {cell["connections"]["O"][0]: name for name, cell in luts.items()}
    read = {bit for cell in module["cells"].values() for port, bits in cell["connections"].items()
            if cell["port_directions"][port] == "input" for bit in bits}
    read |= {bit for port in module["ports"].values() if port["direction"] != "input" for bit in port["bits"]}
    carry_bits, absorbed = 0, set()
    for cell in module["cells"].values():
        if cell["type"] != "CARRY4":
            continue
        pins = cell["connections"]
        outputs = [{pins["O"][bit], pins["CO"][bit]} & read for bit in range(4)]
        used = max((bit + 1 for bit in range(4) if outputs[bit]), default=0)
        carry_bits += used
        for bit in range(used):
            sum_lut, data_lut = drivers.get(pins["S"][bit]), drivers.get(pins["DI"][bit])
            inputs = set()
            if sum_lut and sum_lut not in absorbed:
                absorbed.add(sum_lut)
                inputs |= _inputs(luts[sum_lut])
            if data_lut and data_lut not in absorbed:
                inputs |= _inputs(luts[data_lut])
                if len(inputs) <= _LUT6_2_INPUTS:
                    absorbed.add(data_lut)
    return carry_bits, len(absorbed)


def _inputs(lut):
    return {bits[0] for port, bits in lut["connections"].items() if port != "O"}
