"""LayerNorm unit: residual addition and LayerNorm from buffer to buffer, two passes that overlap."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import COUNT_BITS, read_port, write_port
from rtl_templates.layernorm_scaling import LayerNormScaling
from rtl_templates.layernorm_spec import HEADER_RECORDS, Z_BITS, channel_record, epsilon_record, mean_record
from rtl_templates.layernorm_statistics import LayerNormStatistics
from rtl_templates.layernorm_sums import LayerNormSums, beat_layout
from rtl_templates.pipeline import delay


class LayerNormUnit(wiring.Component):
    """Bit-exact with :meth:`compressor.intops.layernorm.IntegerLayerNorm.compute`, for T tokens in parallel.

    While the second pass of a token group runs out of the unit's own buffer, the first pass of the next
    one reads: a group costs one pass. ``start`` in cycle 0 gives ``busy`` in cycles 1 to n and ``done`` in
    cycle n = ``spec.cycles(groups, columns)``, that of the last write; the next start may be in cycle
    n + 1. Reads of the first group begin in cycle 2. With 1 or 2 channels per cycle the two read ports
    are never enabled in the same cycle, and may lead to one port of one bank.

    Members
    -------
    start : :py:`In(1)`
    command : :py:`In(spec.command_layout())`
        Read in the cycle of ``start``; ``groups`` and ``columns`` at least 1.
    busy, done : :py:`Out(1)`
    table : :py:`In(spec.table_layout())`
        Writes a record of ``spec.table()``; not in the bank of a running command.
    residual_read, branch_read : :py:`Out(read_port(spec))`
    residual_data, branch_data : :py:`In(word_layout(spec))`
        ``spec.read_latency`` cycles after the enable of their port.
    write : :py:`Out(write_port(spec))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "command": In(spec.command_layout()),
                          "busy": Out(1), "done": Out(1), "table": In(spec.table_layout()),
                          "residual_read": Out(read_port(spec)), "residual_data": In(word_layout(spec)),
                          "branch_read": Out(read_port(spec)), "branch_data": In(word_layout(spec)),
                          "write": Out(write_port(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.sums = sums = LayerNormSums(spec)
        m.submodules.statistics = statistics = LayerNormStatistics(spec)
        m.submodules.scaling = scaling = LayerNormScaling(spec)

        command = Signal(spec.command_layout())
        with m.If(self.start):
            m.d.sync += command.eq(self.command)
        table = Signal(spec.table_layout())
        m.d.sync += [self.busy.eq(self.start | (self.busy & ~self.done)), table.eq(self.table)]
        final_beat = Signal(range(spec.beats(spec.columns)))
        with m.If(self.start):
            m.d.sync += final_beat.eq((self.command.columns << spec.word_beats.bit_length() - 1) - 1)

        valid, beat = self._first_pass(m, command, final_beat)
        self._gather(m, sums, valid)
        flags = Cat(valid, beat == 0, beat == final_beat)
        flags = delay(m, flags, spec.gather_latency, "flags", reset=True)
        m.d.comb += Cat(sums.valid, sums.first, sums.last).eq(flags)
        epsilon, mean = self._header(m, table, command.bank)
        m.d.comb += [statistics.sums.eq(sums.sums), statistics.hidden.eq(command.columns << 2),
                     statistics.epsilon.eq(epsilon.epsilon), statistics.multiplier.eq(mean.multiplier),
                     statistics.shift.eq(mean.shift), scaling.output_shift.eq(epsilon.output_shift),
                     scaling.statistics.eq(statistics.statistics)]

        again, second_beat = self._second_pass(m, statistics.statistics.valid, final_beat)
        self._buffer(m, sums, scaling, again)
        m.d.comb += [scaling.valid.eq(delay(m, again, 1, "again", reset=True)),
                     scaling.first.eq(delay(m, second_beat == 0, 1, "second_first"))]
        self._constants(m, table, command.bank, beat, second_beat, sums, scaling)
        self._write(m, command, scaling)
        return m

    def _first_pass(self, m, command, final_beat):
        """Reads residual and branch, a token group every ``spec.period(columns)`` cycles."""
        spec = self.spec
        reading, slot = Signal(), Signal(range(max(spec.beats(spec.columns), spec.minimum_period)))
        group, last_group = Signal(COUNT_BITS), Signal()
        bases = {"residual": Signal(spec.address_bits), "branch": Signal(spec.address_bits)}
        shortest = spec.minimum_period - 1
        final_slot = Signal.like(slot, init=shortest)
        m.d.sync += final_slot.eq(Mux(final_beat < shortest, shortest, final_beat))
        valid, beat = Signal(), Signal.like(final_beat)
        m.d.comb += beat.eq(slot)
        ending = slot == final_slot
        with m.If(self.start):
            m.d.sync += [reading.eq(1), valid.eq(1), slot.eq(0), group.eq(0),
                         last_group.eq(self.command.groups == 1)]
            m.d.sync += [base.eq(self.command[name]) for name, base in bases.items()]
        with m.Elif(reading):
            m.d.sync += slot.eq(Mux(ending, 0, slot + 1))
            with m.If(slot == final_beat):
                m.d.sync += valid.eq(0)
            with m.If(ending):
                m.d.sync += [group.eq(group + 1), last_group.eq(group + 2 == command.groups),
                             reading.eq(~last_group), valid.eq(~last_group)]
                m.d.sync += [base.eq(base + command[f"{name}_stride"]) for name, base in bases.items()]
        phase_bits = spec.word_beats.bit_length() - 1
        for name, port, phase in (("residual", self.residual_read, 0), ("branch", self.branch_read, 1)):
            chosen = beat[:phase_bits] == phase if phase_bits else 1
            m.d.sync += [port.enable.eq(valid & chosen), port.address.eq(bases[name] + (beat >> phase_bits))]
        return valid, beat

    def _gather(self, m, sums, valid):
        """Words to beats of ``spec.channels`` channels, ``spec.gather_latency`` cycles after the read."""
        spec = self.spec
        residual = Signal(word_layout(spec), name="residual_word", reset_less=True)
        branch = Signal(word_layout(spec), name="branch_word", reset_less=True)
        beat_bits = spec.channels * spec.lanes * 8
        if spec.word_beats == 1:
            m.d.sync += [residual.eq(self.residual_data), branch.eq(self.branch_data)]
        else:
            waiting = Signal(word_layout(spec), name="residual_waiting", reset_less=True)
            arrived = delay(m, self.branch_read.enable, spec.read_latency, "arrived")
            m.d.sync += [waiting.eq(self.residual_data),
                         residual.as_value().eq(Mux(arrived, waiting, residual.as_value() >> beat_bits)),
                         branch.as_value().eq(Mux(arrived, self.branch_data, branch.as_value() >> beat_bits))]
        for channel in range(spec.channels):
            m.d.comb += [sums.residual[channel].eq(residual[channel]),
                         sums.branch[channel].eq(branch[channel])]

    def _second_pass(self, m, begin, final_beat):
        """Beats of the second pass, from the cycle after the statistics on."""
        again, beat = Signal(), Signal.like(final_beat, name="second_beat")
        with m.If(begin):
            m.d.sync += beat.eq(0)
        with m.Elif(again):
            m.d.sync += beat.eq(beat + 1)
        m.d.sync += again.eq(begin | (again & (beat != final_beat)))
        return again, beat

    def _buffer(self, m, sums, scaling, again):
        """z of every beat between its two passes; a ring, because both pass over it in the same order."""
        spec = self.spec
        layout = beat_layout(spec, signed(Z_BITS))
        m.submodules.buffer = buffer = Memory(shape=layout, depth=spec.buffer_beats, init=[])
        written, read = buffer.write_port(), buffer.read_port()
        m.d.comb += [written.en.eq(sums.z_valid), written.data.eq(sums.z), read.en.eq(again),
                     scaling.z.eq(read.data)]
        for moving, port in ((sums.z_valid, written), (again, read)):
            with m.If(moving):
                m.d.sync += port.addr.eq(Mux(port.addr == spec.buffer_beats - 1, 0, port.addr + 1))

    def _header(self, m, table, bank):
        """The first two records of the chosen bank; like the memories of the others, they survive a reset."""
        epsilon = Signal(data.ArrayLayout(epsilon_record(), 2), reset_less=True)
        mean = Signal(data.ArrayLayout(mean_record(), 2), reset_less=True)
        for record, address in ((epsilon, 0), (mean, 1)):
            with m.If(table.enable & (table.address == address)):
                m.d.sync += record[table.bank].as_value().eq(table.data)
        chosen = [Signal(records.shape().elem_shape, name=f"chosen_{name}", reset_less=True)
                  for name, records in (("epsilon", epsilon), ("mean", mean))]
        m.d.sync += [chosen[0].eq(epsilon[bank]), chosen[1].eq(mean[bank])]
        return chosen

    def _constants(self, m, table, bank, beat, second_beat, sums, scaling):
        """Per-channel constants of both passes, in two memories."""
        spec = self.spec
        record = Signal(channel_record())
        index = Signal(table.address.shape())
        m.d.comb += [record.as_value().eq(table.data), index.eq(table.address - HEADER_RECORDS)]
        channel_bits = (spec.channels - 1).bit_length()
        first_beat = delay(m, beat, spec.gather_latency - 2, "shift_beat")
        late_beat = delay(m, second_beat, 1 + scaling.GAMMA_DELAY - 2, "gamma_beat")
        depth = 2 << len(beat)
        alignment = data.StructLayout({"residual_shift": 3, "branch_shift": 3})
        affine = data.StructLayout({"gamma": signed(16), "beta": signed(31)})
        for channel in range(spec.channels):
            chosen = (table.enable & (table.address >= HEADER_RECORDS)
                      & (index[:channel_bits] == channel))
            shifts = m.submodules[f"shifts{channel}"] = Memory(shape=alignment, depth=depth, init=[])
            scales = m.submodules[f"scales{channel}"] = Memory(shape=affine, depth=depth, init=[])
            for memory in (shifts, scales):
                port = memory.write_port()
                m.d.comb += [port.en.eq(chosen), port.addr[-1].eq(table.bank),
                             port.addr[:-1].eq(index >> channel_bits)]
                m.d.comb += [port.data[name].eq(record[name]) for name, _ in memory.shape]
            shift, scale = shifts.read_port(), scales.read_port()
            m.d.comb += [shift.addr.eq(Cat(first_beat, bank)), scale.addr.eq(Cat(late_beat, bank)),
                         Cat(sums.residual_shift[channel], sums.branch_shift[channel]).eq(
                             delay(m, shift.data.as_value(), 1, f"shift{channel}"))]
            m.d.comb += [scaling.gamma[channel].eq(delay(m, scale.data.gamma, 1, f"gamma{channel}")),
                         scaling.beta[channel].eq(delay(m, scale.data.beta, 2, f"beta{channel}"))]

    def _write(self, m, command, scaling):
        """Beats to words, and their addresses."""
        spec = self.spec
        word = Signal(word_layout(spec), reset_less=True)
        beat_bits = spec.channels * spec.lanes * 8
        phase, final_phase = Signal(max(1, spec.word_beats.bit_length() - 1)), Signal()
        column, group = Signal(range(spec.columns)), Signal(COUNT_BITS)
        base, final_column, final_group = Signal(spec.address_bits), Signal(), Signal()
        enable, final = Signal(), Signal()
        m.d.comb += [final_phase.eq(phase == spec.word_beats - 1),
                     self.write.data.eq(word), self.write.enable.eq(enable), self.done.eq(final)]
        with m.If(scaling.y_valid):
            m.d.sync += word.as_value().eq(Cat(word.as_value(), scaling.y)[beat_bits:])
        m.d.sync += [enable.eq(scaling.y_valid & final_phase),
                     final.eq(scaling.y_valid & final_phase & final_column & final_group)]
        with m.If(self.start):
            m.d.sync += [phase.eq(0), column.eq(0), group.eq(0), base.eq(self.command.destination),
                         final_column.eq(self.command.columns == 1), final_group.eq(self.command.groups == 1)]
        with m.Elif(scaling.y_valid):
            m.d.sync += phase.eq(Mux(final_phase, 0, phase + 1))
            with m.If(final_phase):
                m.d.sync += [self.write.address.eq(base + column),
                             column.eq(Mux(final_column, 0, column + 1)),
                             final_column.eq(column + 2 == command.columns)]
                with m.If(final_column):
                    m.d.sync += [final_column.eq(command.columns == 1),
                                 final_group.eq(group + 2 == command.groups),
                                 group.eq(group + 1), base.eq(base + command.destination_stride)]
