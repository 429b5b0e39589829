"""Control registers: the AXI4-Lite slave with counters, interrupt, profile window and pool window."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.array_spec import PoolStorage
from rtl_templates.axi import ADDRESS_BITS as POINTER_BITS
from rtl_templates.axi import lite_slave_members
from rtl_templates.pattern_decoder import pool_layout
from rtl_templates.register_map import (
    ADDRESS_BITS,
    IDENTITY,
    LENGTHS,
    LENGTHS_BASE,
    MAP_VERSION,
    POOL_BASE,
    PROFILE_BASE,
    REGISTERS,
    STATUS_BITS,
)

POINTERS = ("program", "weights", "input", "output")
NUMBERS = ("program_length", "weights_beats", "sequences", "input_stride", "output_stride")
COUNTERS = ("busy_cycles", "weight_wait_cycles", "drain_wait_cycles", "load_cycles", "store_cycles", "tiles")
"""Counters of single-cycle events; each has an input of its name."""


class ControlRegisters(wiring.Component):
    """The registers of :mod:`rtl_templates.register_map`, one access at a time.

    Latency: 4 clock cycles for a read, 2 for a write. Addresses without a register read 0; writes to
    them do nothing. All accesses answer OKAY.

    Members
    -------
    bus_* : AXI4-Lite slave
    interrupt : :py:`Out(1)`
        High while an enabled cause is pending and the global enable is set.
    start, taken, running, done : handshake with the sequencer
    program, weights, input, output : :py:`Out(64)`
        Pointers.
    program_length, weights_beats, sequences, input_stride, output_stride : :py:`Out(32)`
    sequence, valid_length : :py:`In(32)`, :py:`Out(16)`
        Only with an encoder: valid length of that sequence, 2 cycles later.
    status, index, dispatched : from the sequencer
    busy_cycles, ... : :py:`In(1)`
        Events of ``COUNTERS``; they count while ``running``, from zero.
    saturated : :py:`In`
        Values clipped in this cycle.
    pool : :py:`Out(pool_layout(spec.array))`
        Only for RAM pools.
    """

    def __init__(self, spec):
        self.spec = spec
        members = {
            **lite_slave_members("bus", ADDRESS_BITS), "interrupt": Out(1),
            "start": Out(1), "taken": In(1), "running": In(1), "done": In(1), "status": In(STATUS_BITS),
            "index": In(32), "dispatched": In(1), "saturated": In(range(spec.array.lanes + 1)),
            **{register.name: Out(32, init=register.reset) for register in REGISTERS
               if register.name in NUMBERS}}
        if spec.encoder is not None:
            members |= {"sequence": In(32), "valid_length": Out(16)}
        members |= {name: Out(POINTER_BITS) for name in POINTERS} | {name: In(1) for name in COUNTERS}
        if spec.array.storage is PoolStorage.RAM:
            members["pool"] = Out(pool_layout(spec.array))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        values = {name: Signal(32, name=name) for name in COUNTERS}
        events = {name: Signal(name=f"{name}_event") for name in COUNTERS}
        m.d.sync += [events[name].eq(getattr(self, name) & self.running) for name in COUNTERS]
        m.d.sync += [values[name].eq(values[name] + events[name]) for name in COUNTERS]
        cycles, saturations, descriptor = Signal(32), Signal(32), Signal(32)
        values |= {"cycles": cycles, "saturations": saturations, "descriptor": descriptor,
                   "status": self.status}
        m.d.sync += [cycles.eq(cycles + self.running), saturations.eq(saturations + self.saturated)]
        with m.If(self.dispatched):
            m.d.sync += descriptor.eq(self.index)
        with m.If(self.taken):
            m.d.sync += [values[name].eq(0) for name in COUNTERS]
            m.d.sync += [cycles.eq(0), saturations.eq(0), descriptor.eq(0)]
        values |= {"id": IDENTITY, "version": MAP_VERSION, "configuration": self.spec.configuration}

        write, address, chosen, data, strobe = self._write_channel(m)
        named = {name: write & one for name, one in chosen.items()}
        for name in POINTERS:
            pointer = getattr(self, name)
            values |= {f"{name}_low": pointer[:32], f"{name}_high": pointer[32:]}
        values |= {name: getattr(self, name) for name in NUMBERS}
        global_enable, enable, pending = Signal(), Signal(2), Signal(2)
        values |= {"interrupt_global": global_enable, "interrupt_enable": enable}
        for register in REGISTERS:
            if register.access == "rw":
                target = values[register.name]
                for byte in range(-(-len(target) // 8)):
                    with m.If(named[register.name] & strobe[byte]):
                        m.d.sync += target[8 * byte:8 * byte + 8].eq(data[8 * byte:8 * byte + 8])

        finished, ready = Signal(), Signal()
        values["control"] = Cat(self.start, finished, ~self.running, ready)
        values["interrupt_status"] = pending
        read_control = self._read_channel(m, values)
        m.d.sync += [
            self.start.eq((self.start & ~self.taken) | (named["control"] & strobe[0] & data[0])),
            finished.eq(self.done | (finished & ~read_control)),
            ready.eq(self.done | (ready & ~read_control)),
            # Writing 1 toggles, as in Vitis kernels; a new cause wins.
            pending.eq((pending ^ Mux(named["interrupt_status"] & strobe[0], data[:2], 0))
                       | (self.done.replicate(2) & enable))]
        m.d.comb += self.interrupt.eq(global_enable & pending.any())
        if self.spec.array.storage is PoolStorage.RAM:
            self._pool_window(m, write, address, data)
        if self.spec.encoder is not None:
            self._lengths_window(m, write, address, data)
        return m

    def _write_channel(self, m):
        """Takes address and data in any order; returns a one-cycle write with its operands.

        Which register an address is of is found out as it comes.
        """
        chosen = {register.name: Signal(name=f"writes_{register.name}") for register in REGISTERS}
        address, data, strobe = Signal(ADDRESS_BITS), Signal(32), Signal(4)
        has_address, has_data, write = Signal(), Signal(), Signal()
        m.d.comb += [self.bus_awready.eq(~has_address), self.bus_wready.eq(~has_data),
                     self.bus_bresp.eq(0), write.eq(has_address & has_data & ~self.bus_bvalid)]
        with m.If(self.bus_awvalid & self.bus_awready):
            m.d.sync += address.eq(self.bus_awaddr & ~0x3)
            m.d.sync += [chosen[register.name].eq(self.bus_awaddr >> 2 == register.address >> 2)
                         for register in REGISTERS]
        with m.If(self.bus_wvalid & self.bus_wready):
            m.d.sync += [data.eq(self.bus_wdata), strobe.eq(self.bus_wstrb)]
        m.d.sync += [has_address.eq((has_address | self.bus_awvalid) & ~write),
                     has_data.eq((has_data | self.bus_wvalid) & ~write),
                     self.bus_bvalid.eq(write | (self.bus_bvalid & ~self.bus_bready))]
        return write, address, chosen, data, strobe

    def _read_channel(self, m, values):
        """Answers reads of registers and profile; returns the cycle in which ``control`` was handed over."""
        address = Signal(ADDRESS_BITS)
        stage = Signal(3)  # address there, memory read, answer valid
        reads = {register.name: Signal(name=f"reads_{register.name}") for register in REGISTERS}
        in_profile = Signal()
        m.submodules.profile = profile = Memory(shape=32, depth=max(2, self.spec.program_depth), init=[],
                                                attrs={"no_rw_check": 1})
        write, read = profile.write_port(), profile.read_port()
        m.d.sync += [write.en.eq(self.dispatched), write.addr.eq(self.index), write.data.eq(values["cycles"])]
        m.d.comb += [read.addr.eq(address >> 2), self.bus_arready.eq(~stage.any()),
                     self.bus_rvalid.eq(stage[2]), self.bus_rresp.eq(0)]
        with m.If(self.bus_arvalid & self.bus_arready):
            m.d.sync += address.eq(self.bus_araddr & ~0x3)
        m.d.sync += stage.eq(Cat(self.bus_arvalid & self.bus_arready, stage[0],
                                 stage[1] | (stage[2] & ~self.bus_rready)))
        m.d.sync += in_profile.eq((address >= PROFILE_BASE) & (address < POOL_BASE))
        m.d.sync += [reads[register.name].eq(address == register.address) for register in REGISTERS]
        low = reduce(or_, (Mux(reads[register.name], values[register.name], 0) for register in REGISTERS))
        with m.If(stage[1]):
            m.d.sync += self.bus_rdata.eq(Mux(in_profile, read.data, low))
        return stage[1] & reads["control"]

    def _lengths_window(self, m, write, address, data):
        m.submodules.lengths = lengths = Memory(shape=16, depth=LENGTHS, init=[])
        port, read = lengths.write_port(), lengths.read_port()
        m.d.comb += [port.en.eq(write & (address >= LENGTHS_BASE) & (address < PROFILE_BASE)),
                     # What does not fit must not turn into a length that is valid.
                     port.addr.eq(address >> 2), port.data.eq(data | data[16:].any().replicate(16)),
                     read.addr.eq(self.sequence)]
        m.d.sync += self.valid_length.eq(read.data)

    def _pool_window(self, m, write, address, data):
        """Word 2i is the low half of entry code i's control word, word 2i + 1 the high half."""
        half = Signal(32)
        pool = self.pool
        in_pool = write & (address >= POOL_BASE)
        with m.If(in_pool & ~address[2]):
            m.d.sync += half.eq(data)
        m.d.sync += [pool.write.eq(in_pool & address[2]), pool.code.eq((address & (POOL_BASE - 1)) >> 3),
                     pool.word.eq(Cat(half, data))]
