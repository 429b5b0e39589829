"""K-step fetch: from a place in the bank to the K-step that the array takes."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.activation_buffer import ActivationBuffer
from rtl_templates.matmul_controller import address_bits, issue_layout
from rtl_templates.pattern_array import kstep_layout
from rtl_templates.record_memory import RecordMemory, number_of
from rtl_templates.tile_banks import BANKS, index_layout


class KStepFetch(wiring.Component):
    """Reads the index, then activations and weights. A pipeline without waits.

    Latency: ``LATENCY`` clock cycles from ``issue`` to ``kstep``. Throughput: 1 K-step per cycle.

    Members
    -------
    issue : :py:`In(issue_layout(spec))`
    index_bank, index_kstep, index : index memory of the tile banks
    weights_bank, weights_kstep, weights : weight memory of the tile banks
    activation_address, activation : read port of the activation buffer
    kstep : :py:`Out(kstep_layout(spec.array))`
    """

    ADDRESS = RecordMemory.LATENCY + 1
    """Cycles from ``issue`` to the read of activations."""
    LATENCY = ADDRESS + ActivationBuffer.READ_LATENCY
    WEIGHTS = LATENCY - RecordMemory.LATENCY
    """Cycles from ``issue`` to the read of weights."""

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "issue": In(issue_layout(spec)),
            "index_bank": Out(range(BANKS)), "index_kstep": Out(number_of(spec.tile_ksteps)),
            "index": In(index_layout(spec)),
            "weights_bank": Out(range(BANKS)), "weights_kstep": Out(number_of(spec.tile_ksteps)),
            "weights": In(spec.tiles.weight_bits),
            "activation_address": Out(address_bits(spec)), "activation": In(spec.array.word_bits),
            "kstep": Out(kstep_layout(spec.array))})

    def elaborate(self, platform):
        m = Module()
        stages = [self.issue]
        for stage in range(self.LATENCY):
            stages.append(Signal(issue_layout(self.spec), name=f"issue{stage}"))
            m.d.sync += stages[-1].eq(stages[-2])
        m.d.comb += [self.index_bank.eq(self.issue.bank), self.index_kstep.eq(self.issue.kstep),
                     self.weights_bank.eq(stages[self.WEIGHTS].bank),
                     self.weights_kstep.eq(stages[self.WEIGHTS].kstep)]
        m.d.sync += self.activation_address.eq(stages[self.ADDRESS - 1].base + self.index.column)

        fields = ("controls", "dense") if self.spec.tiles.has_dense_bit else ("controls",)
        for field in fields:
            value = self.index[field]
            for stage in range(self.LATENCY - self.ADDRESS + 1):
                delayed = Signal.like(value, name=f"{field}{stage}", reset_less=True)
                m.d.sync += delayed.eq(value)
                value = delayed
            m.d.comb += self.kstep[field].eq(value)
        m.d.comb += [self.kstep[name].eq(stages[-1][name])
                     for name in ("valid", "first", "last", "words", "slot")]
        m.d.comb += [self.kstep.weights.as_value().eq(self.weights),
                     self.kstep.activations.as_value().eq(self.activation)]
        return m
