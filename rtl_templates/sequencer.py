"""Sequencer: fetches the program, dispatches its descriptors in order, and ends every run with a status."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out

from rtl_templates.axi import ADDRESS_BITS
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.matmul_controller import address_bits, command_layout, flag_fields, unit_address_bits
from rtl_templates.program_format import DESCRIPTOR_BYTES, SIDE_BANK, Opcode, Unit
from rtl_templates.record_memory import RecordMemory, RecordSpec
from rtl_templates.register_map import Status

STATUS_BITS = 4
INDEX_BITS = 32
ENCODER_OPCODES = (Opcode.KEYS, Opcode.SOFTMAX, Opcode.TRANSPOSE, Opcode.NORM)
"""Opcodes of the units of encoder layers; unit i waits at bit 3 + i of a wait mask."""

descriptor_layout = data.StructLayout({
    "opcode": 8, "wait": 8, "groups": 16, "tiles": 16, "flags": 16, "source": 32, "destination": 32,
    "source_stride": 16, "destination_stride": 16, "length": 32, "offset": 64})
"""A descriptor, as :mod:`rtl_templates.program_format` packs it."""


class State(Enum):
    """What the sequencer does; the five states from READ to CHECK are one dispatch."""

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
    ``abort`` asks the bus masters to settle what they owe; when they are quiet (or the watchdog bites
    again) ``done`` is raised, and ``clear`` resets everything but the registers and the memories.

    Latency: ``FETCH_TO_DISPATCH`` clock cycles from the last beat of the program to the first dispatch.
    Throughput: one dispatch in ``DISPATCH_INTERVAL`` cycles.

    Members
    -------
    start : :py:`In(1)`
        Begin; taken when ``taken`` is 1.
    program_length, input_pointer, output_pointer, sequences, input_stride, output_stride : :py:`In`
        Registers; constant during a run.
    sequence : :py:`Out(32)`
        Number of the sequence that runs.
    launch : :py:`Out(1)`
        First cycle of a run: read ``program_beats`` beats of program, begin the weight stream.
    program : :py:`In(stream.Signature(bus_bits))`
    matmul : :py:`Out(stream.Signature(command_layout(spec)))`
    transfer : :py:`Out(transfer_layout(spec))`
        Operands of ``load`` or ``store``, which are high for the cycle of dispatch.
    unit : :py:`Out(4)`
        Only with an encoder: the descriptor at hand, ``operands``, goes to the unit of this bit, in the
        order of ``ENCODER_OPCODES``; one at a time, because they share a port of the side bank.
    units_idle : :py:`In(4)`
    load_idle, array_idle, store_idle : :py:`In(1)`
    quiet : :py:`In(1)`
        No bus transaction is under way.
    progress : :py:`In(1)`
        Something moved; keeps the watchdog quiet.
    bad_tile, read_error, write_error : :py:`In(1)`
    dispatched : :py:`Out(1)`
        Descriptor ``index`` is being dispatched.
    done, running, abort, clear, status : :py:`Out`
    """

    FETCH_TO_DISPATCH = 5
    DISPATCH_INTERVAL = 5
    END_TO_DONE = 1

    def __init__(self, spec):
        self.spec = spec
        members = {} if spec.encoder is None else {
            "unit": Out(len(ENCODER_OPCODES)), "units_idle": In(len(ENCODER_OPCODES)),
            "operands": Out(descriptor_layout)}
        super().__init__(members | {
            "start": In(1), "taken": Out(1), "program_length": In(INDEX_BITS),
            "sequences": In(INDEX_BITS), "input_stride": In(32), "output_stride": In(32),
            "sequence": Out(INDEX_BITS),
            "input_pointer": In(ADDRESS_BITS), "output_pointer": In(ADDRESS_BITS),
            "launch": Out(1), "fetching": Out(1), "program_beats": Out(BEATS_BITS),
            "program": In(stream.Signature(spec.bus_bits)),
            "matmul": Out(stream.Signature(command_layout(spec))),
            "transfer": Out(transfer_layout(spec)), "load": Out(1), "store": Out(1),
            "load_idle": In(1), "array_idle": In(1), "store_idle": In(1), "quiet": In(1), "progress": In(1),
            "bad_tile": In(1), "read_error": In(1), "write_error": In(1),
            "dispatched": Out(1), "index": Out(INDEX_BITS), "done": Out(1), "running": Out(1),
            "abort": Out(1), "clear": Out(1), "status": Out(STATUS_BITS)})

    def elaborate(self, platform):
        m = Module()
        state = Signal(State)
        m.submodules.memory = memory = RecordMemory(program_memory(self.spec))
        fetched = self._fetch(m, state, memory)
        go, bad = self._decode(m, state, memory)

        bitten = Signal(self.spec.watchdog_bits + 1)
        m.d.comb += [
            self.taken.eq(self.start & (state == State.IDLE)), self.clear.eq(state == State.CLEAR),
            self.abort.eq(state == State.FINISH), self.fetching.eq(state == State.FETCH),
            self.done.eq((state == State.FINISH) & (self.quiet | bitten[-1])),
            self.running.eq((state != State.IDLE) & (state != State.CLEAR) & (state != State.SETTLE)),
            self.dispatched.eq(go)]
        m.d.sync += bitten.eq(Mux(self.progress | ~self.running | bitten[-1], 0, bitten + 1))

        length_fits = Signal()
        m.d.sync += length_fits.eq((self.program_length != 0)
                                   & (self.program_length <= self.spec.program_depth))
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(self.start):
                m.d.sync += [state.eq(State.LAUNCH), self.status.eq(Status.RUNNING), self.index.eq(0)]
            with m.Case(State.LAUNCH):
                m.d.comb += self.launch.eq(length_fits)
                m.d.sync += state.eq(State.FETCH)
                with m.If(~length_fits):
                    m.d.sync += [state.eq(State.FINISH), self.status.eq(Status.BAD_OPCODE)]
            with m.Case(State.FETCH), m.If(fetched):
                m.d.sync += state.eq(State.READ)
            with m.Case(State.READ):
                m.d.sync += state.eq(State.WAIT)
            with m.Case(State.WAIT):
                m.d.sync += state.eq(State.LATCH)
            with m.Case(State.LATCH):
                m.d.sync += state.eq(State.DECODE)
            with m.Case(State.DECODE):
                m.d.sync += state.eq(State.CHECK)
            with m.Case(State.CHECK):
                with m.If(bad):
                    m.d.sync += [state.eq(State.FINISH), self.status.eq(Status.BAD_OPCODE)]
                with m.Elif(go):
                    m.d.sync += [state.eq(State.READ), self.index.eq(self.index + 1)]
            with m.Case(State.FINISH), m.If(self.done):
                m.d.sync += state.eq(State.CLEAR)
                with m.If(self.status == Status.RUNNING):
                    m.d.sync += self.status.eq(Mux(self.quiet, Status.OK, Status.WATCHDOG))
            with m.Case(State.CLEAR):
                m.d.sync += state.eq(State.SETTLE)
            with m.Case(State.SETTLE):
                m.d.sync += state.eq(State.IDLE)
        final = Signal(init=1)
        m.d.sync += final.eq(self.sequence + 1 >= self.sequences)
        with m.If(go & (self._opcode == Opcode.END)):
            with m.If(final):
                m.d.sync += [state.eq(State.FINISH), self.index.eq(self.index)]
            with m.Else():
                m.d.sync += [self.index.eq(0), self.sequence.eq(self.sequence + 1)]
        m.d.sync += [self._input.eq(Mux(self.launch, self.input_pointer,
                                        self._input + Mux(go & self._ends, self.input_stride, 0))),
                     self._output.eq(Mux(self.launch, self.output_pointer,
                                         self._output + Mux(go & self._ends, self.output_stride, 0)))]
        with m.If(self.launch):
            m.d.sync += self.sequence.eq(0)
        with m.If(self.running & (state != State.FINISH)):
            for code, error in ((Status.WATCHDOG, bitten[-1]), (Status.BAD_TILE, self.bad_tile),
                                (Status.WRITE_ERROR, self.write_error), (Status.READ_ERROR, self.read_error)):
                with m.If(error):
                    m.d.sync += [state.eq(State.FINISH), self.status.eq(code)]
        return m

    def _fetch(self, m, state, memory):
        """Write the beats of the program; returns the signal that the last one has come."""
        row, part = Signal(memory.spec.row_bits), Signal(range(memory.spec.parts))
        left = Signal(BEATS_BITS)
        take = Signal()
        per_row = memory.spec.records_per_row
        m.d.comb += [
            self.program_beats.eq((self.program_length * memory.spec.parts + per_row - 1)
                                  >> (per_row.bit_length() - 1)),
            self.program.ready.eq(self.fetching), take.eq(self.program.valid & self.program.ready),
            memory.write.eq(take), memory.data.eq(self.program.payload), memory.write_row.eq(row),
            memory.write_part.eq(part), memory.read_index.eq(self.index)]
        with m.If(self.launch):
            m.d.sync += [row.eq(0), part.eq(0), left.eq(self.program_beats)]
        with m.Elif(take):
            m.d.sync += [part.eq(part + 1), left.eq(left - 1)]
            with m.If(part == memory.spec.parts - 1):
                m.d.sync += [part.eq(0), row.eq(row + 1)]
        return take & (left == 1)

    def _decode(self, m, state, memory):
        """Registers of the descriptor at hand; returns the signals to dispatch it, and that it is bad."""
        spec = self.spec
        descriptor = Signal(descriptor_layout)
        known, beyond = Signal(), Signal()
        beats_per_word = spec.beats_per_word
        with m.If(state == State.LATCH):
            m.d.sync += descriptor.eq(memory.record)
        m.d.sync += beyond.eq(self.index >= self.program_length)
        opcode = descriptor.opcode
        loads, stores, multiplies = (Signal(name=name) for name in ("loads", "stores", "multiplies"))
        ends = Signal()
        self._ends = ends
        self._input, self._output = (Signal(ADDRESS_BITS, name=name) for name in ("input", "output"))
        units, units_idle, unit_known = self._units(m, state, descriptor)
        with m.If(state == State.DECODE):
            base = Mux(opcode == Opcode.LOAD, self._input, self._output)
            m.d.sync += [
                loads.eq(opcode == Opcode.LOAD), stores.eq(opcode == Opcode.STORE),
                multiplies.eq(opcode == Opcode.MATMUL), ends.eq(opcode == Opcode.END),
                known.eq(~beyond & (
                    (((opcode == Opcode.LOAD) | (opcode == Opcode.STORE)) & descriptor.length.any())
                    | ((opcode == Opcode.MATMUL) & descriptor.groups.any() & descriptor.tiles.any())
                    | (opcode == Opcode.END) | unit_known)),
                self.transfer.address.eq(base + descriptor.offset),
                self.transfer.beats.eq(sum(descriptor.length << bit for bit in range(8)
                                           if beats_per_word >> bit & 1))]
        idle = Signal()
        check = Signal()
        m.d.comb += [
            check.eq((state == State.CHECK) & known),
            idle.eq(units_idle & (self.load_idle | ~descriptor.wait[Unit.LOAD.bit_length() - 1])
                    & (self.array_idle | ~descriptor.wait[Unit.ARRAY.bit_length() - 1])
                    & (self.store_idle | ~descriptor.wait[Unit.STORE.bit_length() - 1])),
            self.transfer.length.eq(descriptor.length), self.transfer.source.eq(descriptor.source),
            self.transfer.destination.eq(descriptor.destination),
            self.load.eq(check & loads & idle & self.load_idle & self.store_idle),
            self.store.eq(check & stores & idle & self.load_idle & self.store_idle),
            self.matmul.valid.eq(check & multiplies & idle)]
        m.d.comb += [self.matmul.payload[name].eq(descriptor[name]) for name in (
            "groups", "tiles", "source", "destination", "source_stride", "destination_stride")]
        go = Signal()
        started = Const(0)
        all_idle = self.load_idle & self.array_idle & self.store_idle
        if spec.encoder is not None:
            side = descriptor.destination[SIDE_BANK.bit_length() - 1]
            m.d.comb += [self.matmul.p.destination.eq(Cat(descriptor.destination[:unit_address_bits(spec)],
                                                          side))]
            m.d.comb += [self.matmul.payload[name].eq(descriptor.flags[bit])
                         for bit, name in enumerate(flag_fields(spec))]
            every = self.units_idle.all()
            m.d.comb += [self.unit.eq(Mux(check & idle & every, units, 0)), self.operands.eq(descriptor)]
            started, all_idle = self.unit.any(), all_idle & every
        self._opcode = opcode
        m.d.comb += go.eq(self.load | self.store | (self.matmul.valid & self.matmul.ready) | started
                          | (check & ends & all_idle))
        return go, (state == State.CHECK) & ~known

    def _units(self, m, state, descriptor):
        """Which unit of encoder layers a descriptor is for; whether those it waits for are idle."""
        if self.spec.encoder is None:
            return None, Const(1), Const(0)
        units = Signal(len(ENCODER_OPCODES))
        chosen = Cat(descriptor.opcode == opcode for opcode in ENCODER_OPCODES)
        complete = descriptor.groups.any() & descriptor.length.any()
        with m.If(state == State.DECODE):
            m.d.sync += units.eq(chosen)
        waited = descriptor.wait[Unit.KEYS.bit_length() - 1:Unit.NORM.bit_length()]
        return units, (self.units_idle | ~waited).all(), chosen.any() & complete
