"""Record memory: written in bus beats, read in records."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


def number_of(count):
    """Shape of a number below ``count``; at least one bit, since Verilog has no empty vectors."""
    return range(max(2, count))


@dataclass(frozen=True, kw_only=True)
class RecordSpec:
    """Sizes of a record memory.

    Parameters
    ----------
    record_bits, bus_bits : int
        One divides the other.
    records : int
        Records in a bank.
    banks : int
    """

    record_bits: int
    bus_bits: int
    records: int
    banks: int

    def __post_init__(self):
        low, high = sorted((self.record_bits, self.bus_bits))
        if high % low:
            raise ValueError(f"records of {self.record_bits} bits and beats of {self.bus_bits} bits: "
                             f"one must be a multiple of the other")

    @property
    def parts(self):
        """Beats of a row."""
        return max(1, self.record_bits // self.bus_bits)

    @property
    def records_per_row(self):
        """Records of a row."""
        return max(1, self.bus_bits // self.record_bits)

    @property
    def rows(self):
        """Rows of a bank."""
        return -(-self.records // self.records_per_row)

    @property
    def row_bits(self):
        """Width of a row number; the banks begin at its powers of two."""
        return max(1, (self.rows - 1).bit_length())


class RecordMemory(wiring.Component):
    """Banks of records. A row holds one record of several beats, or several records of one beat.

    Latency: ``LATENCY`` clock cycles from ``read_index`` to ``record``. Throughput: 1 record and 1 beat
    per cycle. What a read returns that collides with a write of the same record is undefined.

    Members
    -------
    write : :py:`In(1)`
        Store ``data`` as beat ``write_part`` of row ``write_row`` in bank ``write_bank``.
    write_bank, write_row, write_part, data : :py:`In`
    read_bank, read_index : :py:`In`
        Bank and record to read.
    record : :py:`Out(record_bits)`
    """

    LATENCY = 2

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"write": In(1), "write_bank": In(number_of(spec.banks)),
                          "write_row": In(spec.row_bits), "write_part": In(number_of(spec.parts)),
                          "data": In(spec.bus_bits),
                          "read_bank": In(number_of(spec.banks)), "read_index": In(number_of(spec.records)),
                          "record": Out(spec.record_bits)})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        width = max(spec.record_bits, spec.bus_bits)
        m.submodules.memory = memory = Memory(shape=width, depth=spec.banks << spec.row_bits, init=[],
                                              attrs={"no_rw_check": 1})
        write, read = memory.write_port(granularity=spec.bus_bits), memory.read_port()
        row = Signal(width, reset_less=True)
        m.d.sync += row.eq(read.data)
        select_bits = spec.records_per_row.bit_length() - 1
        if select_bits:
            select = self.read_index[:select_bits]
            for stage in range(self.LATENCY):
                delayed = Signal(select_bits, name=f"select{stage}", reset_less=True)
                m.d.sync += delayed.eq(select)
                select = delayed
            m.d.comb += self.record.eq(row.word_select(select, spec.record_bits))
        else:
            m.d.comb += self.record.eq(row)
        read_row = Signal(spec.row_bits)
        m.d.comb += [
            read_row.eq(self.read_index >> select_bits),
            write.addr.eq(Cat(self.write_row, self.write_bank)),
            write.data.eq(self.data.replicate(spec.parts)),
            write.en.eq(Cat(self.write & (self.write_part == part) for part in range(spec.parts))),
            read.addr.eq(Cat(read_row, self.read_bank))]
        return m
