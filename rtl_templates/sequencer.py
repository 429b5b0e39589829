"""Sequencer: fetches the program, dispatches its descriptors in order, and ends every run with a status."""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from rtl_templates.axi import ADDRESS_BITS
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.descriptor_check import DescriptorCheck, descriptor_layout
from rtl_templates.matmul_controller import address_bits, command_layout, flag_fields, unit_address_bits
from rtl_templates.program_format import DESCRIPTOR_BYTES, SIDE_BANK, Opcode, Unit
from rtl_templates.record_memory import RecordMemory, RecordSpec
from rtl_templates.register_map import LENGTHS, STATUS_BITS, Status

INDEX_BITS = 32
ENCODER_OPCODES = (Opcode.KEYS, Opcode.SOFTMAX, Opcode.TRANSPOSE, Opcode.NORM)
"""Opcodes of the units of encoder layers; unit i waits at bit 3 + i of a wait mask."""


class State(IntEnum):
    """What the sequencer does, a bit each; the five states from READ to CHECK are one dispatch."""

    IDLE = 0
    LAUNCH = 1
    FETCH = 2
    READ = 3
    WAIT = 4
    LATCH = 5
    DECODE = 6
    CHECK = 7
    FINISH = 8
    CLEAR = 9
    SETTLE = 10
    STUCK = 11


def program_memory(spec):
    """Sizes of the program memory."""
    return RecordSpec(record_bits=8 * DESCRIPTOR_BYTES, bus_bits=spec.bus_bits,
                      records=spec.program_depth, banks=1)


def transfer_layout(spec):
    """A LOAD or STORE, as dispatched: byte address and beats in memory, words of the buffer."""
    return data.StructLayout({"address": ADDRESS_BITS, "beats": BEATS_BITS, "length": BEATS_BITS,
                              "source": address_bits(spec), "destination": address_bits(spec)})


class Sequencer(wiring.Component):
    """One program per ``start``, as often as there are sequences; END of all but the last begins the next.

    A run ends with END, with the first error, or when nothing moves for ``2**watchdog_bits`` cycles. Then
    ``abort`` asks the bus masters to settle what they owe; when they are quiet ``done`` is raised, and
    ``clear`` resets everything but the registers and the memories. If the watchdog bites again instead,
    ``done`` is raised with the status of a timeout, and the masters go on settling: a start meanwhile is
    answered with the same status, and only when they are quiet, or after a reset, is there a next run.

    Latency: ``FETCH_TO_DISPATCH`` clock cycles from the last beat of the program to the first dispatch,
    ``DISPATCH_TO_UNIT`` from there to the unit's start, ``IDLE_TO_DISPATCH`` from a unit's being idle to a
    dispatch that waited for it.
    Throughput: one dispatch in ``DISPATCH_INTERVAL`` cycles.

    Members
    -------
    start : :py:`In(1)`
        Begin; taken when ``taken`` is 1.
    misaligned : :py:`In(1)`
        A pointer or a stride is no multiple of the bus width.
    program_length, input_pointer, output_pointer, sequences, input_stride, output_stride : :py:`In`
        Registers; constant during a run.
    sequence : :py:`Out(32)`
        Number of the sequence that runs.
    launch : :py:`Out(1)`
        First cycle of a run: read ``program_beats`` beats of program, begin the weight stream.
    program : :py:`In(stream.Signature(bus_bits))`
    matmul : :py:`Out(stream.Signature(command_layout(spec)))`
        Valid for the cycle after the dispatch; once ready, it stays so until then.
    transfer : :py:`Out(transfer_layout(spec))`
        Operands of ``load`` or ``store``, which are high for the cycle after the dispatch.
    unit : :py:`Out(4)`
        Only with an encoder: the descriptor at hand, ``operands``, goes to the unit of this bit, in the
        order of ``ENCODER_OPCODES``; one at a time, because they share a port of the side bank.
    units_idle : :py:`In(4)`
    valid_length : :py:`In(16)`
        Only with an encoder: of that sequence.
    load_idle, array_idle, store_idle : :py:`In(1)`
    quiet : :py:`In(3)`
        No bus transaction is under way: of program and inputs, of weights, of outputs.
    weights_left : :py:`In(1)`
        The weight stream is not used up.
    progress : :py:`In(1)`
        Something moved; keeps the watchdog quiet.
    stream_error : :py:`In(STATUS_BITS)`
        Not 0: status code of a bad packet of the weight stream.
    read_error, weight_error, write_error : :py:`In(1)`
        The beat or the response accepted in the cycle before was an error.
    dispatched : :py:`Out(1)`
        Descriptor ``index`` is being dispatched.
    done, running, abort, clear, status : :py:`Out`
    """

    FETCH_TO_DISPATCH = 5
    DISPATCH_INTERVAL = 5
    IDLE_TO_DISPATCH = 1
    DISPATCH_TO_UNIT = 1
    END_TO_DONE = 4
    SETTLING = END_TO_DONE - 1
    """Cycles before it is looked whether the bus is quiet."""

    def __init__(self, spec):
        self.spec = spec
        members = {} if spec.encoder is None else {
            "unit": Out(len(ENCODER_OPCODES)), "units_idle": In(len(ENCODER_OPCODES)),
            "operands": Out(descriptor_layout), "valid_length": In(16)}
        super().__init__(members | {
            "start": In(1), "taken": Out(1), "program_length": In(INDEX_BITS),
            "sequences": In(INDEX_BITS), "input_stride": In(32), "output_stride": In(32),
            "sequence": Out(INDEX_BITS), "misaligned": In(1),
            "input_pointer": In(ADDRESS_BITS), "output_pointer": In(ADDRESS_BITS),
            "launch": Out(1), "fetching": Out(1), "program_beats": Out(BEATS_BITS),
            "program": In(stream.Signature(spec.bus_bits)),
            "matmul": Out(stream.Signature(command_layout(spec))),
            "transfer": Out(transfer_layout(spec)), "load": Out(1), "store": Out(1),
            "load_idle": In(1), "array_idle": In(1), "store_idle": In(1), "progress": In(1),
            "quiet": In(3), "weights_left": In(1), "stream_error": In(STATUS_BITS),
            "read_error": In(1), "weight_error": In(1), "write_error": In(1),
            "dispatched": Out(1), "index": Out(INDEX_BITS), "done": Out(1), "running": Out(1),
            "abort": Out(1), "clear": Out(1), "status": Out(STATUS_BITS)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(len(State), init=1 << State.IDLE)
        m.submodules.memory = memory = RecordMemory(program_memory(self.spec))
        fetched = self._fetch(m, state, memory)
        go, check = self._decode(m, state, memory)

        bitten = Signal(self.spec.watchdog_bits + 1)
        refused = Signal()  # a start while the bus is stuck
        # The masters stop in the cycle after `abort`, which is registered, and whether they are quiet too.
        quiets, waited = Signal(3), Signal(self.SETTLING)
        quiet = quiets.all()
        m.d.sync += [quiets.eq(self.quiet), waited.eq(Mux(state[State.FINISH], Cat(1, waited), 0)),
                     self.abort.eq(state[State.FINISH] | state[State.STUCK])]
        m.d.comb += [
            refused.eq(self.start & state[State.STUCK] & ~quiet),
            self.taken.eq((self.start & state[State.IDLE]) | refused),
            self.clear.eq(state[State.CLEAR]), self.fetching.eq(state[State.FETCH]),
            self.done.eq((state[State.FINISH] & ((quiet & waited[-1]) | bitten[-1])) | refused),
            self.running.eq(~Cat(state[idle] for idle in (
                State.IDLE, State.CLEAR, State.SETTLE, State.STUCK)).any()),
            self.dispatched.eq(go)]
        m.d.sync += bitten.eq(Mux(self.progress | ~self.running | bitten[-1], 0, bitten + 1))

        setup, refusing = self._setup(m)

        def move(source, target):
            return [state[source].eq(0), state[target].eq(1)]

        with m.If(state[State.IDLE] & self.start):
            m.d.sync += [*move(State.IDLE, State.LAUNCH), self.status.eq(Status.RUNNING), self.index.eq(0)]
        m.d.sync += self.launch.eq(self.start & state[State.IDLE] & ~refusing)
        with m.If(state[State.LAUNCH]):
            m.d.sync += move(State.LAUNCH, State.FETCH)
            with m.If(refusing):
                m.d.sync += [*move(State.FETCH, State.FINISH), self.status.eq(setup)]
        with m.If(state[State.FETCH] & fetched):
            m.d.sync += move(State.FETCH, State.READ)
        for before, after in pairwise((State.READ, State.WAIT, State.LATCH, State.DECODE, State.CHECK)):
            with m.If(state[before]):
                m.d.sync += move(before, after)
        with m.If(state[State.CHECK]):
            with m.If(check.refused):
                m.d.sync += [*move(State.CHECK, State.FINISH), self.status.eq(check.refusal)]
            with m.Elif(go):
                m.d.sync += [*move(State.CHECK, State.READ), self.index.eq(self.index + 1)]
        with m.If(state[State.FINISH] & self.done):
            with m.If(quiet):
                m.d.sync += move(State.FINISH, State.CLEAR)
                with m.If(self.status == Status.RUNNING):
                    m.d.sync += self.status.eq(Status.OK)
            with m.Else():
                m.d.sync += [*move(State.FINISH, State.STUCK), self.status.eq(Mux(
                    ~quiets[0], Status.READ_TIMEOUT,
                    Mux(~quiets[1], Status.WEIGHT_TIMEOUT, Status.WRITE_TIMEOUT)))]
        with m.If(state[State.STUCK] & quiet):
            m.d.sync += move(State.STUCK, State.CLEAR)
        for before, after in pairwise((State.CLEAR, State.SETTLE, State.IDLE)):
            with m.If(state[before]):
                m.d.sync += move(before, after)
        faulty, fault = Signal(), Signal(STATUS_BITS)
        final, following = Signal(init=1), Signal(INDEX_BITS)
        m.d.sync += [following.eq(self.sequence + 1), final.eq(following >= self.sequences)]
        with m.If(self._ending):
            with m.If(final):
                m.d.sync += [*move(State.READ, State.FINISH), self.index.eq(self.index)]
            with m.Else():
                m.d.sync += [self.index.eq(0), self.sequence.eq(self.sequence + 1)]
        # Registered: the masters are told to stop a cycle later still. A fault in the END's cycle says more.
        ended = Signal()
        m.d.sync += ended.eq(self._ending & final & ~faulty)
        with m.If(ended & self.weights_left):
            m.d.sync += self.status.eq(Status.WEIGHTS_LEFT)
        onward = Signal()  # registered: the next transfer's address is not needed for cycles yet
        m.d.sync += [onward.eq(self._ending),
                     self._input.eq(Mux(state[State.LAUNCH], self.input_pointer,
                                        self._input + Mux(onward, self.input_stride, 0))),
                     self._output.eq(Mux(state[State.LAUNCH], self.output_pointer,
                                         self._output + Mux(onward, self.output_stride, 0)))]
        with m.If(state[State.LAUNCH]):
            m.d.sync += self.sequence.eq(0)
        was_fetching = Signal()
        m.d.sync += was_fetching.eq(self.fetching)
        read_error = Mux(was_fetching, Status.PROGRAM_READ_ERROR, Status.INPUT_READ_ERROR)
        m.d.sync += faulty.eq(0)
        with m.If(faulty & self.running & ~state[State.FINISH]):
            m.d.sync += [state.eq(1 << State.FINISH), self.status.eq(fault)]
        for error, code in ((bitten[-1], Status.WATCHDOG), (check.outside, Status.BAD_DESCRIPTOR),
                            (self.stream_error.any(), self.stream_error),
                            (self.write_error, Status.OUTPUT_WRITE_ERROR),
                            (self.weight_error, Status.WEIGHT_READ_ERROR), (self.read_error, read_error)):
            with m.If(error):
                m.d.sync += [faulty.eq(1), fault.eq(code)]
        return m

    def _setup(self, m):
        """Status code of registers with which no run can begin, and whether they are such."""
        code, too_many = Signal(STATUS_BITS), 0
        if self.spec.encoder is not None:
            too_many = self.sequences > LENGTHS
        # Registers are written cycles before a start.
        fits, counts, refusing = Signal(), Signal(), Signal()
        m.d.sync += [
            fits.eq(self.program_length.any() & (self.program_length <= self.spec.program_depth)),
            counts.eq(self.sequences.any() & ~too_many),
            code.eq(Mux(~fits, Status.BAD_PROGRAM,
                        Mux(~counts, Status.BAD_SEQUENCES, Mux(self.misaligned, Status.BAD_POINTER, 0)))),
            refusing.eq(~fits | ~counts | self.misaligned)]
        return code, refusing

    def _fetch(self, m, state, memory):
        """Write the beats of the program; returns the signal that the last one has come."""
        row, part = Signal(memory.spec.row_bits), Signal(range(memory.spec.parts))
        left, final = Signal(BEATS_BITS), Signal()
        take = Signal()
        per_row = memory.spec.records_per_row
        m.d.sync += self.program_beats.eq((self.program_length * memory.spec.parts + per_row - 1)
                                          >> (per_row.bit_length() - 1))
        m.d.comb += [
            self.program.ready.eq(self.fetching), take.eq(self.program.valid & self.program.ready),
            memory.write.eq(take), memory.data.eq(self.program.payload), memory.write_row.eq(row),
            memory.write_part.eq(part), memory.read_index.eq(self.index)]
        with m.If(self.launch):
            m.d.sync += [row.eq(0), part.eq(0), left.eq(self.program_beats),
                         final.eq(self.program_beats == 1)]
        with m.Elif(take):
            m.d.sync += [part.eq(part + 1), left.eq(left - 1), final.eq(left == 2)]
            with m.If(part == memory.spec.parts - 1):
                m.d.sync += [part.eq(0), row.eq(row + 1)]
        return take & final

    def _decode(self, m, state, memory):
        """Registers of the descriptor at hand; returns the signal to dispatch it, and its check."""
        spec = self.spec
        descriptor = Signal(descriptor_layout)
        m.submodules.check = checker = DescriptorCheck(spec)
        beats_per_word = spec.beats_per_word
        with m.If(state[State.LATCH]):
            m.d.sync += descriptor.eq(memory.record)
        m.d.sync += checker.beyond.eq(self.index >= self.program_length)
        m.d.comb += [checker.latch.eq(state[State.LATCH]), checker.decode.eq(state[State.DECODE]),
                     checker.record.eq(memory.record), checker.descriptor.eq(descriptor)]
        loads, stores, multiplies = (Signal(name=name) for name in ("loads", "stores", "multiplies"))
        ends = Signal()
        self._ending = Signal()
        self._input, self._output = (Signal(ADDRESS_BITS, name=name) for name in ("input", "output"))
        units, started, units_waited, units_idle = self._units(m, state, checker.record, descriptor.wait)
        record = checker.record.opcode
        with m.If(state[State.LATCH]):
            m.d.sync += [loads.eq(record == Opcode.LOAD), stores.eq(record == Opcode.STORE),
                         multiplies.eq(record == Opcode.MATMUL), ends.eq(record == Opcode.END)]
        with m.If(state[State.DECODE]):
            base = Mux(loads, self._input, self._output)
            m.d.sync += [
                self.transfer.address.eq(base + descriptor.offset),
                self.transfer.beats.eq(sum(descriptor.length << bit for bit in range(8)
                                           if beats_per_word >> bit & 1))]
        # Registered: whether a unit is idle is known late. None begins in the cycles before a check.
        clear, check, go = Signal(), Signal(), Signal()
        wait = descriptor.wait
        waited = (self.load_idle | ~wait[Unit.LOAD.bit_length() - 1],
                  self.array_idle | ~wait[Unit.ARRAY.bit_length() - 1],
                  self.store_idle | ~wait[Unit.STORE.bit_length() - 1])
        all_idle = self.load_idle & self.array_idle & self.store_idle
        m.d.sync += clear.eq(Cat(units_waited, waited, ~(loads | stores) | (self.load_idle & self.store_idle),
                                 ~started | units_idle, ~ends | (all_idle & units_idle)).all())
        m.d.comb += [
            check.eq(state[State.CHECK] & ~checker.refused),
            go.eq(check & clear & (self.matmul.ready | ~multiplies)),
            self._ending.eq(check & clear & ends),
            self.transfer.length.eq(descriptor.length), self.transfer.source.eq(descriptor.source),
            self.transfer.destination.eq(descriptor.destination)]
        m.d.sync += [self.load.eq(go & loads), self.store.eq(go & stores),
                     self.matmul.valid.eq(go & multiplies)]
        m.d.comb += [self.matmul.payload[name].eq(descriptor[name]) for name in (
            "groups", "tiles", "source", "destination", "source_stride", "destination_stride")]
        if spec.encoder is not None:
            side = descriptor.destination[SIDE_BANK.bit_length() - 1]
            m.d.comb += [self.matmul.p.destination.eq(Cat(descriptor.destination[:unit_address_bits(spec)],
                                                          side))]
            m.d.comb += [self.matmul.payload[name].eq(descriptor.flags[bit])
                         for bit, name in enumerate(flag_fields(spec))]
            m.d.comb += [checker.valid_length.eq(self.valid_length), self.operands.eq(descriptor)]
            m.d.sync += self.unit.eq(Mux(go, units, 0))
        return go, checker

    def _units(self, m, state, record, wait):
        """Which unit of encoder layers a descriptor is for, and if any; whether those it waits for, and
        whether all of them, are idle."""
        if self.spec.encoder is None:
            return Const(0), Const(0), Const(1), Const(1)
        units, started = Signal(len(ENCODER_OPCODES)), Signal()
        chosen = Cat(record.opcode == opcode for opcode in ENCODER_OPCODES)
        with m.If(state[State.LATCH]):
            m.d.sync += [units.eq(chosen), started.eq(chosen.any())]
        waited = wait[Unit.KEYS.bit_length() - 1:Unit.NORM.bit_length()]
        return units, started, (self.units_idle | ~waited).all(), self.units_idle.all()
