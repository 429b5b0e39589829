"""Word memory: block RAM in banks with registered outputs, so that no multiplexer follows a RAM directly."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.pipeline import delay, register

BANK_WORDS = 4096
"""Words of a bank: the depth of UltraRAM, and of block RAM in bytes; twice that of ECP5's block RAM."""


class WordMemory(wiring.Component):
    """One port for reading, one that reads or writes at one address, as a true dual-port RAM has them.

    The output of a block RAM comes late in its clock cycle. Each bank's output is registered before one
    of them is chosen, and the choice is registered too.

    Latency: ``LATENCY`` clock cycles of each read; a word written in a cycle is seen by reads that begin in
    the next. Throughput: 1 word per cycle and port. What a read returns that collides with a write of the
    same word is undefined.

    Parameters
    ----------
    width : int
        Bits of a word.
    depth : int
        Words, at least 1.

    Members
    -------
    address, word : read port
    shared_address, shared_word : second read port
    write : :py:`In(1)`
        Store ``data`` at ``shared_address`` instead; what the second port reads in that cycle is undefined.
    data : :py:`In(width)`
    """

    LATENCY = 3

    def __init__(self, width, depth):
        self.width = width
        self.depth = max(2, depth)
        address = In(range(self.depth))
        super().__init__({"address": address, "word": Out(width), "shared_address": address,
                          "shared_word": Out(width), "write": In(1), "data": In(width)})

    def elaborate(self, platform):
        m = Module()
        bits = BANK_WORDS.bit_length() - 1
        words, shared_words = [], []
        for start in range(0, self.depth, BANK_WORDS):
            number = start // BANK_WORDS
            memory = Memory(shape=self.width, depth=max(2, min(BANK_WORDS, self.depth - start)), init=[],
                            attrs={"no_rw_check": 1})
            m.submodules[f"bank{number}"] = memory
            read, shared, write = memory.read_port(), memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(self.address), shared.addr.eq(self.shared_address), shared.en.eq(~self.write),
                write.addr.eq(self.shared_address), write.data.eq(self.data),
                write.en.eq(self.write & (self.shared_address >> bits == number))]
            words.append(register(m, read.data, f"word{number}"))
            shared_words.append(register(m, shared.data, f"shared_word{number}"))
        for chosen, banks, address in ((self.word, words, self.address),
                                       (self.shared_word, shared_words, self.shared_address)):
            bank = delay(m, address[bits:], self.LATENCY - 1, "bank") if len(banks) > 1 else 0
            output = Signal(self.width, reset_less=True)
            m.d.sync += output.eq(Array(banks)[bank])
            m.d.comb += chosen.eq(output)
        return m
