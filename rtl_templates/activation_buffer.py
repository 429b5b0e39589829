"""Activation buffer: words of activations, in one memory with two ports, or in two banks."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.matmul_controller import address_bits, result_address_bits, unit_address_bits
from rtl_templates.pipeline import delay
from rtl_templates.word_memory import WordMemory


def buffer_write_layout(spec):
    """A word to store and its address."""
    return data.StructLayout({"address": address_bits(spec), "word": spec.array.word_bits})


def result_write_layout(spec):
    """A word of results; with an encoder the top bit of its address selects the side bank."""
    return data.StructLayout({"address": result_address_bits(spec), "word": spec.array.word_bits})


class ActivationBuffer(wiring.Component):
    """The array owns one port for reading. The other is shared: results first, then LOAD, then STORE.

    Both ports are needed all the time: the array reads a word in nearly every cycle. Results come at
    most every fourth cycle, so that LOAD or STORE, which ask at most every second cycle, wait at most one.
    One address serves reading and writing of the shared port, so block memories map it to a true
    dual-port RAM of the same size.

    With an encoder there is a side bank, with one port for writing, that of results, and one for
    reading, that of the encoder's units. These also read the main bank through the array's port and
    write it through the shared one, after results: wait masks see to it that the array is not reading, and
    not writing there, at the same time.

    Latency: ``READ_LATENCY`` clock cycles for the array and the units, ``STORE_LATENCY`` from the accepted
    address for STORE; a word written in a cycle is seen by reads that begin ``WRITE_LATENCY`` cycles
    later.
    Throughput: 1 word per cycle and port. What a read returns that collides with a write of the same
    word is undefined; wait masks prevent it.

    Members
    -------
    read_address, read_word : array's port
    result : :py:`In(stream.Signature(result_write_layout(spec), always_ready=True))`
    load : :py:`In(stream.Signature(buffer_write_layout(spec)))`
    store : :py:`In(stream.Signature(address_bits))`
    stored : :py:`Out(stream.Signature(word_bits, always_ready=True))`
    unit_enable, unit_address : :py:`In`
        With an encoder: a unit reads the main bank, its word is in ``read_word``.
    unit_write : :py:`In(stream.Signature(buffer_write_layout(spec), always_ready=True))`
        With an encoder: a unit writes the main bank.
    side_address, side_word : with an encoder: read port of the side bank
    """

    READ_LATENCY = WordMemory.LATENCY
    STORE_LATENCY = 1 + WordMemory.LATENCY
    WRITE_LATENCY = 3
    """Of results and units; LOAD is a cycle faster. A dispatch comes later than that to its unit."""

    def __init__(self, spec):
        self.spec = spec
        write, word_bits = buffer_write_layout(spec), spec.array.word_bits
        members = {
            "read_address": In(address_bits(spec)), "read_word": Out(word_bits),
            "result": In(stream.Signature(result_write_layout(spec), always_ready=True)),
            "load": In(stream.Signature(write)), "store": In(stream.Signature(address_bits(spec))),
            "stored": Out(stream.Signature(word_bits, always_ready=True))}
        if spec.encoder is not None:
            members |= {
                "unit_enable": In(1), "unit_address": In(unit_address_bits(spec)),
                "unit_write": In(stream.Signature(write, always_ready=True)),
                "side_address": In(unit_address_bits(spec)), "side_word": Out(word_bits)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        width = self.spec.array.word_bits
        m.submodules.memory = memory = WordMemory(width, self.spec.activation_words)
        m.d.comb += [memory.address.eq(self.read_address), self.read_word.eq(memory.word)]

        result, chosen = Signal(), self.result.payload
        arrives = result
        m.d.comb += result.eq(self.result.valid)
        if self.spec.encoder is not None:
            self._side_bank(m)
            with m.If(self.unit_enable):
                m.d.comb += memory.address.eq(self.unit_address)
            m.d.comb += result.eq(self.result.valid & ~self.result.p.address[-1])
            arrives = result | self.unit_write.valid
            chosen = Mux(result, Cat(self.result.p.address[:address_bits(self.spec)], self.result.p.word),
                         self.unit_write.payload.as_value())
        # LOAD and STORE wait for results and units: whether one of them writes is a register's output.
        arriving, arrived = Signal(), Signal(buffer_write_layout(self.spec), reset_less=True)
        free = Signal(init=1)  # not arriving; a register of its own, since many loads hang on the other
        m.d.sync += [arriving.eq(arrives), free.eq(~arrives), arrived.eq(chosen)]

        address = Signal(address_bits(self.spec))
        word = Signal(width, reset_less=True)
        writing, reading = Signal(), Signal()
        m.d.comb += [
            self.load.ready.eq(free), self.store.ready.eq(free & ~self.load.valid),
            memory.shared_address.eq(address), memory.data.eq(word), memory.write.eq(writing),
            self.stored.payload.eq(memory.shared_word),
            self.stored.valid.eq(delay(m, reading, WordMemory.LATENCY, "reading", reset=True))]
        m.d.sync += [
            writing.eq(arriving | self.load.valid), reading.eq(self.store.valid & self.store.ready),
            address.eq(Mux(arriving, arrived.address, Mux(self.load.valid, self.load.p.address,
                                                     self.store.payload))),
            word.eq(Mux(arriving, arrived.word, self.load.p.word))]
        return m

    def _side_bank(self, m):
        m.submodules.side = side = WordMemory(self.spec.array.word_bits, self.spec.encoder.side_words)
        m.d.comb += [side.address.eq(self.side_address), self.side_word.eq(side.word)]
        m.d.sync += [side.data.eq(self.result.p.word), side.shared_address.eq(self.result.p.address),
                     side.write.eq(self.result.valid & self.result.p.address[-1])]
