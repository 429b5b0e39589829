"""Pattern decoder: from the control field of a K-step to the selects of a block unit."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.array_spec import PoolStorage
from rtl_templates.slot_assignment import SIZE


def column_choices(spec, multiplier):
    """Columns that a multiplier can read: those its pool needs (ROM), or all (RAM, STREAM)."""
    if spec.storage is not PoolStorage.ROM:
        return tuple(range(SIZE))
    assignment = spec.assignment
    used = {assignment.columns[entry][multiplier] for entry in range(assignment.entries)
            if assignment.rows[entry][multiplier] >= 0}
    return tuple(sorted(used)) or (0,)


def selects_layout(spec):
    """Selects of a unit: ``columnM`` indexes :func:`column_choices`, ``portR_Q`` is a port's code.

    Selects without a choice are left out, because Verilog has no wires without bits. For RAM and STREAM
    the layout is that of :meth:`SlotAssignment.control_word`.
    """
    assignment = spec.assignment
    fields = {f"column{m}": (len(column_choices(spec, m)) - 1).bit_length()
              for m in range(assignment.multipliers)}
    fields |= {f"port{row}_{q}": assignment.port_bits(candidates)
               for row, ports in enumerate(assignment.ports) for q, candidates in enumerate(ports)}
    return data.StructLayout({name: width for name, width in fields.items() if width})


def selects_of_entry(spec, entry):
    """Values of the selects for one entry, as a dict; the software twin of the ROM."""
    assignment = spec.assignment
    values = {}
    for m in range(assignment.multipliers):
        choices = column_choices(spec, m)
        column = assignment.columns[entry][m]
        values[f"column{m}"] = choices.index(column) if column in choices else 0
    for row, ports in enumerate(assignment.ports):
        for q, candidates in enumerate(ports):
            gated = assignment.port_bits(candidates)
            values[f"port{row}_{q}"] = assignment.port_code(entry, row, candidates) if gated else 0
    return values


class PatternDecoder(wiring.Component):
    """Decodes a pattern id, or passes the control word on. Shared by all lanes of a unit.

    Latency: 1 clock cycle. Throughput: 1 control field per cycle.

    Members
    -------
    control : :py:`In(control_bits)`
        Pattern id or dense part (ROM, RAM); control word (STREAM).
    dense : :py:`In(1)`
        Whether ``control`` names a part of a dense block; ignored for STREAM.
    selects : :py:`Out(selects_layout(spec))`
        One cycle later.
    pool : :py:`In(StructLayout({"write": 1, "code": control_bits + 1, "word": ...}))`
        Only for RAM: writes the control word of ``ArraySpec.entry_code(entry)``.
    """

    def __init__(self, spec):
        self.spec = spec
        members = {"control": In(spec.control_bits), "dense": In(1), "selects": Out(selects_layout(spec))}
        if spec.storage is PoolStorage.RAM:
            members["pool"] = In(pool_layout(spec))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        code = Cat(self.control, self.dense)
        if self.spec.storage is PoolStorage.STREAM:
            m.d.sync += self.selects.as_value().eq(self.control)
        elif self.spec.storage is PoolStorage.RAM:
            m.submodules.memory = memory = Memory(
                shape=self.spec.assignment.control_bits, depth=1 << len(code), init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [write.en.eq(self.pool.write), write.addr.eq(self.pool.code),
                         write.data.eq(self.pool.word), read.addr.eq(code),
                         self.selects.as_value().eq(read.data)]
        else:
            entries = [selects_of_entry(self.spec, e) for e in range(self.spec.assignment.entries)]
            for name, field in self.selects.shape():
                for bit in range(field.width):
                    # One truth table a bit, six inputs for 32 patterns: a single LUT.
                    table = sum((values[name] >> bit & 1) << self.spec.entry_code(entry)
                                for entry, values in enumerate(entries))
                    lookup = Signal(name=f"{name}_{bit}")
                    m.d.comb += lookup.eq(Const(table, 1 << len(code)).bit_select(code, 1))
                    m.d.sync += self.selects[name][bit].eq(lookup)
        return m


def pool_layout(spec):
    """One write to the pattern memory: entry code and control word."""
    return data.StructLayout({"write": 1, "code": spec.control_bits + 1,
                              "word": spec.assignment.control_bits})
