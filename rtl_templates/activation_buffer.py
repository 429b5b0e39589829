"""Activation buffer: words of activations, in one memory with two ports."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.matmul_controller import address_bits


def buffer_write_layout(spec):
    """A word to store and its address."""
    return data.StructLayout({"address": address_bits(spec), "word": spec.array.word_bits})


class ActivationBuffer(wiring.Component):
    """The array owns one port for reading. The other is shared: results first, then LOAD, then STORE.

    Both ports are needed all the time: the array reads a word in nearly every cycle. Results come at
    most every fourth cycle, so that LOAD or STORE, which ask at most every second cycle, wait at most one.
    One address serves reading and writing of the shared port, so block memories map it to a true
    dual-port RAM of the same size.

    Latency: ``READ_LATENCY`` clock cycles for the array, ``STORE_LATENCY`` from the accepted address for
    STORE; a word written in a cycle is seen by reads that begin ``WRITE_LATENCY`` cycles later.
    Throughput: 1 word per cycle and port. What a read returns that collides with a write of the same
    word is undefined; wait masks prevent it.

    Members
    -------
    read_address, read_word : array's port
    result : :py:`In(stream.Signature(buffer_write_layout(spec), always_ready=True))`
    load : :py:`In(stream.Signature(buffer_write_layout(spec)))`
    store : :py:`In(stream.Signature(address_bits))`
    stored : :py:`Out(stream.Signature(word_bits, always_ready=True))`
    """

    READ_LATENCY = 2
    STORE_LATENCY = 3
    WRITE_LATENCY = 2

    def __init__(self, spec):
        self.spec = spec
        write = buffer_write_layout(spec)
        super().__init__({
            "read_address": In(address_bits(spec)), "read_word": Out(spec.array.word_bits),
            "result": In(stream.Signature(write, always_ready=True)),
            "load": In(stream.Signature(write)), "store": In(stream.Signature(address_bits(spec))),
            "stored": Out(stream.Signature(spec.array.word_bits, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        width = self.spec.array.word_bits
        m.submodules.memory = memory = Memory(shape=width, depth=max(2, self.spec.activation_words), init=[],
                                              attrs={"no_rw_check": 1})
        array, shared, write = memory.read_port(), memory.read_port(), memory.write_port()
        read_word = Signal(width, reset_less=True)
        m.d.comb += [array.addr.eq(self.read_address), self.read_word.eq(read_word)]
        m.d.sync += read_word.eq(array.data)

        address = Signal(address_bits(self.spec))
        word = Signal(width, reset_less=True)
        writing, reading, fetched = Signal(), Signal(), Signal()
        stored = Signal(width, reset_less=True)
        m.d.comb += [
            self.load.ready.eq(~self.result.valid),
            self.store.ready.eq(~self.result.valid & ~self.load.valid),
            write.addr.eq(address), write.data.eq(word), write.en.eq(writing),
            shared.addr.eq(address), shared.en.eq(~writing), self.stored.payload.eq(stored)]
        m.d.sync += [
            writing.eq(self.result.valid | self.load.valid), reading.eq(self.store.valid & self.store.ready),
            address.eq(Mux(self.result.valid, self.result.p.address,
                           Mux(self.load.valid, self.load.p.address, self.store.payload))),
            word.eq(Mux(self.result.valid, self.result.p.word, self.load.p.word)),
            fetched.eq(reading), self.stored.valid.eq(fetched), stored.eq(shared.data)]
        return m
