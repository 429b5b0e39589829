"""Descriptor check: refuses descriptors that no unit could execute, by the rules of descriptor_rules."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import SHIFT_MAX
from rtl_templates.descriptor_rules import EXPONENT_BITS, known_units, rules
from rtl_templates.program_format import SIDE_BANK, Opcode
from rtl_templates.register_map import STATUS_BITS, Status
from rtl_templates.word_format import CHANNELS

descriptor_layout = data.StructLayout({
    "opcode": 8, "wait": 8, "groups": 16, "tiles": 16, "flags": 16, "source": 32, "destination": 32,
    "source_stride": 16, "destination_stride": 16, "length": 32, "offset": 64})
"""A descriptor, as :mod:`rtl_templates.program_format` packs it."""

ADDRESS_BITS = SIDE_BANK.bit_length() - 1
EXTENT_BITS = 34
"""Width of the end of a range: an address, a product of two counts and a length."""


class DescriptorCheck(wiring.Component):
    """Equals :func:`rtl_templates.descriptor_rules.fault`.

    Fields and transfers are checked before a descriptor is dispatched, so that no transfer touches memory
    that it must not. Ranges of several token groups take one multiplier and come later: their unit may
    have begun by then, on nothing but the accelerator's own buffers. Comparisons begin with the record,
    a cycle before ``decode``, so that long ones have a cycle of their own.

    Latency: ``refusal`` 1 clock cycle after ``decode``, ``outside`` ``LATENCY`` cycles after it.

    Members
    -------
    latch : :py:`In(1)`
        ``record`` holds the descriptor, which is in ``descriptor`` from the next cycle on.
    decode : :py:`In(1)`
        That cycle; ``descriptor`` stays for ``LATENCY`` cycles.
    record, descriptor : :py:`In(descriptor_layout)`
    beyond : :py:`In(1)`
        The program ends before this descriptor.
    valid_length : :py:`In(16)`
        Only with an encoder: of the sequence that runs; read with ``latch``.
    refusal : :py:`Out(STATUS_BITS)`
        Status code, 0 if the descriptor may be dispatched; ``refused`` : :py:`Out(1)` if it may not.
    outside : :py:`Out(1)`
        A range leaves its bank.
    """

    LATENCY = 5

    def __init__(self, spec):
        self.spec = spec
        members = {} if spec.encoder is None else {"valid_length": In(16)}
        super().__init__(members | {
            "latch": In(1), "decode": In(1), "record": In(descriptor_layout),
            "descriptor": In(descriptor_layout), "beyond": In(1), "refusal": Out(STATUS_BITS),
            "refused": Out(1), "outside": Out(1)})

    def elaborate(self, platform):
        m = Module()
        d, record = self.descriptor, self.record
        transfer_end = Signal(EXTENT_BITS)
        with m.If(self.latch):
            m.d.sync += transfer_end.eq(
                record.length + Mux(record.opcode == Opcode.LOAD, record.destination, record.source))
        code = Signal(STATUS_BITS)
        too_long, bad = Signal(), {}
        with m.If(self.latch):
            for opcode, rule in rules(self.spec).items():
                bad[opcode] = Signal(name=f"bad_{opcode.name.lower()}")
                m.d.sync += bad[opcode].eq(Cat(self._faults(opcode, rule)).any())
            if self.spec.encoder is not None:
                m.d.sync += too_long.eq(self.valid_length > CHANNELS * record.length)
        with m.Switch(d.opcode):
            for opcode, rule in rules(self.spec).items():
                over = transfer_end > (rule.source or rule.destination) if rule.transfer else 0
                with m.Case(opcode):
                    with m.If(bad[opcode] | over):
                        m.d.comb += code.eq(Status.BAD_DESCRIPTOR)
                    if opcode is Opcode.SOFTMAX:
                        with m.Elif(too_long):
                            m.d.comb += code.eq(Status.BAD_LENGTH)
            with m.Default():
                m.d.comb += code.eq(Status.BAD_OPCODE)
        with m.If(self.decode):
            m.d.sync += [self.refusal.eq(Mux(self.beyond, Status.BAD_PROGRAM, code)),
                         self.refused.eq(self.beyond | code.any())]
        self._ranges(m)
        return m

    def _faults(self, opcode, rule):
        """One bit for each way in which the fields of a record can be wrong, its ranges left out."""
        d = self.record
        faults = [d[name] == 0 for name in rule.counts]
        faults += [(d.wait & (0xFF & ~known_units(self.spec))).any(),
                   (d.flags & (0xFFFF & ~rule.flags)).any()]
        if rule.groups:
            faults.append(d.groups > rule.groups)
        if rule.length:
            faults.append(d.length > rule.length)
        if rule.transfer:
            faults.append(d.offset[:(self.spec.bus_bits // 8).bit_length() - 1].any())
        else:
            for field, words, side in (("source", rule.source, rule.source_side),
                                       ("destination", rule.destination, rule.destination_side)):
                if words and side is not None:
                    faults.append(d[field][ADDRESS_BITS] != side)
        if rule.branch:
            faults.append(~d.offset[ADDRESS_BITS])
        if opcode is Opcode.KEYS:
            faults += [d.offset[16:] > SHIFT_MAX, d.offset[16:] == 0]
        if opcode is Opcode.SOFTMAX:
            faults.append(d.offset[32 + EXPONENT_BITS:].any())
        return faults

    def _ranges(self, m):
        """Ends of the ranges that have a stride, one product a cycle."""
        d, record = self.descriptor, self.record
        strided = {opcode: rule for opcode, rule in rules(self.spec).items() if not rule.transfer}

        def is_any(condition):
            return Cat([d.opcode == opcode for opcode, rule in strided.items() if condition(rule)]
                       or [Const(0)]).any()

        steps = [self.decode, *(Signal(name=f"step{index}") for index in range(1, self.LATENCY))]
        m.d.sync += [after.eq(before) for before, after in pairwise(steps)]
        ends = {name: Signal(EXTENT_BITS, name=f"{name}_end") for name in ("source", "branch", "destination")}
        product = Signal(32, reset_less=True)
        counted, stride = Signal(16, reset_less=True), Signal(16, reset_less=True)
        counts = {name: Signal(16, name=f"{name}_count") for name in ("source", "result")}
        groups, words, extent = Signal(16), Signal(16), Signal(32)
        firsts = {name: Signal(EXTENT_BITS, name=f"{name}_first_end") for name in ends}
        transposes, norms = record.opcode == Opcode.TRANSPOSE, record.opcode == Opcode.NORM
        m.d.comb += groups.eq(Mux(transposes, self._groups_of(record.length), record.groups))
        with m.If(self.latch):
            m.d.sync += [
                counts["source"].eq(record.groups - 1), counts["result"].eq(groups - 1),
                words.eq(Mux(transposes, record.tiles,
                             Mux(norms, record.length, record.destination_stride))),
                extent.eq(Mux(record.length.any(), record.length, record.source_stride))]
        m.d.sync += [counted.eq(Mux(steps[0], counts["source"], counts["result"])),
                     stride.eq(Mux(steps[0], d.source_stride, d.destination_stride)),
                     product.eq(counted * stride)]
        # Ends of first groups, ready before the products, so that one adder follows the multiplier.
        m.d.sync += [firsts["source"].eq(d.source[:ADDRESS_BITS] + extent),
                     firsts["branch"].eq(d.offset[:ADDRESS_BITS] + extent),
                     firsts["destination"].eq(d.destination[:ADDRESS_BITS] + words)]
        with m.If(steps[2]):
            m.d.sync += [ends[name].eq(product + firsts[name]) for name in ("source", "branch")]
        with m.If(steps[3]):
            m.d.sync += ends["destination"].eq(product + firsts["destination"])
        used = {"source": (is_any(lambda rule: rule.source), d.source),
                "branch": (is_any(lambda rule: rule.branch), d.offset),
                "destination": (is_any(lambda rule: rule.destination), d.destination)}
        over = [uses & (ends[name] > self._words(address)) for name, (uses, address) in used.items()]
        m.d.sync += self.outside.eq(steps[4] & Cat(over).any())

    def _words(self, address):
        """Words of the bank that an address lies in."""
        spec = self.spec
        if spec.encoder is None:
            return spec.activation_words
        return Mux(address[ADDRESS_BITS], spec.encoder.side_words, spec.activation_words)

    def _groups_of(self, length):
        """Token groups of T channels in ``length`` words of 4; at most 65535 words."""
        divisor = self.spec.array.lanes // CHANNELS or 1
        rounded = length[:16] + (divisor - 1)
        if divisor & (divisor - 1) == 0:
            return rounded >> (divisor.bit_length() - 1)
        # Exact: the error of the reciprocal times 2^17 stays below one in 2^22.
        return rounded * -(-(1 << 22) // divisor) >> 22
