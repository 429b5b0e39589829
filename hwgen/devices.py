"""FPGA devices that hwgen can size an accelerator for.

Resources are the vendors' data-sheet numbers. Clock frequencies are *assumed*: no number here comes from
a placed design.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryKind:
    """A kind of on-chip memory block, with the (width, depth) shapes in which one block can be used.

    ``halves``: a block can serve two memories of half its width instead.
    """

    name: str
    shapes: tuple[tuple[int, int], ...]
    halves: bool = False

    @property
    def bits(self) -> int:
        """Bits of one block."""
        return max(width * depth for width, depth in self.shapes)

    def blocks(self, width: int, depth: int, count: int = 1) -> int:
        """Blocks of ``count`` memories with one write port and one read port each.

        >>> BRAM36.blocks(256, 1024), BRAM36.blocks(8, 64), BRAM36.blocks(8, 64, count=8)
        (8, 1, 4)
        """
        each = min(-(-width // w) * -(-depth // d) for w, d in self.shapes)
        if self.halves and any(2 * width <= w and depth <= d for w, d in self.shapes):
            return -(-count // 2)
        return count * each


BRAM36 = MemoryKind("BRAM36", ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384),
                               (1, 32768)), halves=True)
URAM288 = MemoryKind("URAM288", ((72, 4096),))
EBR18 = MemoryKind("EBR18", ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)))


@dataclass(frozen=True, kw_only=True)
class Device:
    """One board or chip.

    Parameters
    ----------
    name, part : str
        Name on the command line, and the vendor's part number.
    family : str
        ``xcup`` (UltraScale+), ``xc7`` (7 series) or ``ecp5``.
    luts, ffs, dsps : int
        6-input LUTs (4-input on ecp5), flip-flops, and multiplier blocks.
    ram, rams : MemoryKind, int
        Block RAM and the number of blocks.
    urams : int
        UltraRAM blocks of 288 kbit.
    bus_bits : int
        Width of a memory port in bits.
    assumed_clock_mhz : float
        For times and bandwidths in reports; not from a placed design.
    dram_gbytes_per_s : float
        Peak bandwidth of the board's memory, as rated, in 10^9 bytes a second.
    """

    name: str
    part: str
    family: str
    luts: int
    ffs: int
    dsps: int
    ram: MemoryKind
    rams: int
    urams: int
    bus_bits: int
    assumed_clock_mhz: float
    dram_gbytes_per_s: float


DEVICES = {device.name: device for device in (
    Device(name="zcu104", part="xczu7ev-ffvc1156-2-e", family="xcup",
           luts=230_400, ffs=460_800, dsps=1_728, ram=BRAM36, rams=312, urams=96,
           bus_bits=128, assumed_clock_mhz=250.0, dram_gbytes_per_s=19.2),
    Device(name="kv260", part="xck26-sfvc784-2LV-c", family="xcup",
           luts=117_120, ffs=234_240, dsps=1_248, ram=BRAM36, rams=144, urams=64,
           bus_bits=128, assumed_clock_mhz=250.0, dram_gbytes_per_s=19.2),
    Device(name="u250", part="xcu250-figd2104-2L-e", family="xcup",
           luts=1_728_000, ffs=3_456_000, dsps=12_288, ram=BRAM36, rams=2_688, urams=1_280,
           bus_bits=512, assumed_clock_mhz=250.0, dram_gbytes_per_s=76.8),
    Device(name="ecp5-85k", part="LFE5U-85F-6BG756C", family="ecp5",
           luts=83_640, ffs=83_640, dsps=156, ram=EBR18, rams=208, urams=0,
           bus_bits=64, assumed_clock_mhz=80.0, dram_gbytes_per_s=1.6),
    Device(name="arty-a7-100", part="xc7a100tcsg324-1", family="xc7",
           luts=63_400, ffs=126_800, dsps=240, ram=BRAM36, rams=135, urams=0,
           bus_bits=128, assumed_clock_mhz=100.0, dram_gbytes_per_s=1.33),
)}
"""The devices, by name."""
