"""Units of encoder layers: keys and softmax as tiles, transposition, LayerNorm, and their ports."""

from dataclasses import dataclass
from functools import cached_property

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.activation_buffer import ActivationBuffer, buffer_write_layout
from rtl_templates.descriptor_check import descriptor_layout
from rtl_templates.gelu_table import GeluTableSpec
from rtl_templates.key_source import KeySource, KeySourceSpec
from rtl_templates.layernorm_spec import HEADER_RECORDS, LayerNormSpec
from rtl_templates.layernorm_unit import LayerNormUnit
from rtl_templates.matmul_controller import address_bits, unit_address_bits
from rtl_templates.program_format import Flag
from rtl_templates.sequencer import ENCODER_OPCODES
from rtl_templates.softmax_source import SoftmaxSource
from rtl_templates.softmax_source_spec import SoftmaxSourceSpec
from rtl_templates.tile_format import Table
from rtl_templates.tile_loader import table_write_layout
from rtl_templates.transposer import Transposer, TransposerSpec
from rtl_templates.word_format import CHANNELS, token_groups

LENGTH_BITS = 16
"""Width of a valid length."""


@dataclass(frozen=True)
class EncoderUnitSpecs:
    """Specs of the units of an :class:`AcceleratorSpec` with an encoder.

    Parameters
    ----------
    spec : AcceleratorSpec
    """

    spec: object

    def _common(self):
        return {"address_bits": unit_address_bits(self.spec), "read_latency": ActivationBuffer.READ_LATENCY}

    @cached_property
    def keys(self):
        """Key source."""
        return KeySourceSpec(array=self.spec.array, tiles=self.spec.tiles,
                             columns=self.spec.encoder.key_columns, **self._common())

    @cached_property
    def softmax(self):
        """Softmax source."""
        encoder, lanes = self.spec.encoder, self.spec.array.lanes
        return SoftmaxSourceSpec(array=self.spec.array, tiles=self.spec.tiles,
                                 columns=token_groups(encoder.tokens, lanes) * lanes // CHANNELS,
                                 map_entries=encoder.map_entries, map_power=encoder.map_power,
                                 **self._common())

    @cached_property
    def transposer(self):
        """Transposer."""
        return TransposerSpec(lanes=self.spec.array.lanes, **self._common())

    @cached_property
    def norm(self):
        """LayerNorm: the two norms of a layer have one of its two tables each."""
        return LayerNormSpec(lanes=self.spec.array.lanes, columns=self.spec.encoder.columns,
                             channels=self.spec.encoder.norm_channels, **self._common())

    @cached_property
    def gelu(self):
        """GELU table."""
        return GeluTableSpec(lanes=self.spec.array.lanes)


class EncoderUnits(wiring.Component):
    """One unit runs at a time; tiles of the sources leave by one stream.

    The tables of exp and GELU have two banks. Those of the norms have one: the loader must not reach
    them before the norms of the layer before are finished, as it does not behind three tiles of the layer.

    Members
    -------
    start : :py:`In(4)`
        One bit a unit, in the order of ``sequencer.ENCODER_OPCODES``.
    operands : :py:`In(descriptor_layout)`
    valid_length : :py:`In(16)`
    idle : :py:`Out(4)`
    table : :py:`In(table_write_layout())`
    packets : :py:`Out(stream.Signature(bus_bits))`
    main_enable, main_address, main_word : read port of the main bank
    side_address, side_word : read port of the side bank
    write : :py:`Out(stream.Signature(buffer_write_layout(spec), always_ready=True))`
        Into the main bank.
    """

    def __init__(self, spec):
        self.spec = spec
        self.units = EncoderUnitSpecs(spec)
        address, word_bits = unit_address_bits(spec), spec.array.word_bits
        super().__init__({
            "start": In(len(ENCODER_OPCODES)), "operands": In(descriptor_layout),
            "valid_length": In(LENGTH_BITS), "idle": Out(len(ENCODER_OPCODES)),
            "table": In(table_write_layout()), "packets": Out(stream.Signature(spec.bus_bits)),
            "main_enable": Out(1), "main_address": Out(address), "main_word": In(word_bits),
            "side_address": Out(address), "side_word": In(word_bits),
            "write": Out(stream.Signature(buffer_write_layout(spec), always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        specs = self.units
        m.submodules.keys = keys = KeySource(specs.keys)
        m.submodules.softmax = softmax = SoftmaxSource(specs.softmax)
        m.submodules.transposer = transposer = Transposer(specs.transposer)
        m.submodules.norm = norm = LayerNormUnit(specs.norm)

        active = Signal(len(ENCODER_OPCODES))  # whoever was started last has the ports
        with m.If(self.start.any()):
            m.d.sync += active.eq(self.start)
        self._commands(m, keys, softmax, transposer, norm)
        self._tables(m, softmax, norm)
        m.d.comb += [
            self.idle.eq(~Cat(keys.busy, softmax.busy, transposer.busy, norm.busy)),
            self.packets.valid.eq(Mux(active[1], softmax.o.valid, keys.o.valid)),
            self.packets.payload.eq(Mux(active[1], softmax.o.payload, keys.o.payload)),
            softmax.o.ready.eq(self.packets.ready & active[1]),
            keys.o.ready.eq(self.packets.ready & ~active[1]),
            self.main_enable.eq(norm.residual_read.enable), self.main_address.eq(norm.residual_read.address),
            norm.residual_data.as_value().eq(self.main_word),
            self.write.valid.eq(transposer.write.enable | norm.write.enable),
            self.write.p.address.eq(Mux(active[3], norm.write.address,
                                        transposer.write.address)[:address_bits(self.spec)]),
            self.write.p.word.eq(Mux(active[3], norm.write.data.as_value(),
                                     transposer.write.data.as_value()))]
        for index, (port, word) in enumerate(((keys.read, keys.read_data), (softmax.read, softmax.read_data),
                                              (transposer.read, transposer.read_data),
                                              (norm.branch_read, norm.branch_data))):
            m.d.comb += word.as_value().eq(self.side_word)
            with m.If(active[index]):
                m.d.comb += self.side_address.eq(port.address)
        return m

    def _commands(self, m, keys, softmax, transposer, norm):
        """Descriptors to commands; an address loses the bit that selects the bank."""
        o = self.operands
        common = {"source": o.source, "source_stride": o.source_stride, "groups": o.groups}
        destination = {"destination": o.destination, "destination_stride": o.destination_stride}
        commands = (
            (keys.command.p, {**common, "columns": o.length, "multiplier": o.offset[:16],
                              "shift": o.offset[16:32], "valid_length": self.valid_length}),
            (softmax.command.p, {**common, "columns": o.length, "bank": (o.flags & Flag.TABLE_BANK).any(),
                                 "pruning": (o.flags & Flag.MAP_PRUNING).any(),
                                 "numerator": o.offset[:32], "exponent": o.offset[32:],
                                 "valid_length": self.valid_length}),
            (transposer.command, {**common, **destination, "columns": o.length, "words": o.tiles}),
            (norm.command, {"groups": o.groups, "columns": o.length, **destination,
                            "bank": (o.flags & Flag.OUTPUT_NORM).any(),
                            "residual": o.source, "residual_stride": o.source_stride,
                            "branch": o.offset, "branch_stride": o.source_stride}))
        for command, values in commands:
            m.d.comb += [command[name].eq(value) for name, value in values.items()]
        starts = Cat(keys.command.valid, softmax.command.valid, transposer.start, norm.start)
        m.d.comb += starts.eq(self.start)

    def _tables(self, m, softmax, norm):
        write = self.table
        records = HEADER_RECORDS + CHANNELS * self.spec.encoder.columns
        m.d.comb += [
            softmax.table.enable.eq(write.enable & (write.id == Table.EXP)),
            softmax.table.bank.eq(write.bank), norm.table.bank.eq(write.id == Table.OUTPUT_NORM),
            # Behind the last record may come what pads its beat.
            norm.table.enable.eq(write.enable & (write.address < records)
                                 & ((write.id == Table.ATTENTION_NORM) | (write.id == Table.OUTPUT_NORM)))]
        for table in (softmax.table, norm.table):
            m.d.comb += [table.address.eq(write.address), table.data.eq(write.data)]
