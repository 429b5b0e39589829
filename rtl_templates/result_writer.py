"""Result writer: gathers requantized rows into words and gives them their addresses."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.activation_buffer import result_write_layout
from rtl_templates.gelu_table import GeluTable
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.matmul_controller import pass_layout, result_address_bits
from rtl_templates.record_memory import number_of
from rtl_templates.requantizer import RowRequantizer, requantizer_output
from rtl_templates.slot_assignment import SIZE


def passes_in_flight(spec):
    """Depth of the queue of passes: a power of two that holds all whose results are on their way."""
    cycles = KStepFetch.LATENCY + spec.array.latency + RowRequantizer.LATENCY + SIZE
    cycles += 0 if spec.encoder is None else GeluTable.LATENCY
    return 1 << (cycles // SIZE + 1).bit_length()


class ResultWriter(wiring.Component):
    """Four consecutive rows make a word: row r of the four is its channel r.

    Latency: none from the fourth row of a word to ``word``. Throughput: 1 row per cycle.

    Members
    -------
    finished : :py:`In(stream.Signature(pass_layout(spec), always_ready=True))`
        Passes, at the latest a cycle before their first row arrives.
    row : :py:`In(requantizer_output(spec.array))`
    word : :py:`Out(stream.Signature(result_write_layout(spec), always_ready=True))`
    drained : :py:`Out(1)`
        With the last word of a tile.
    idle : :py:`Out(1)`
        Every finished pass has been written.
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "finished": In(stream.Signature(pass_layout(spec), always_ready=True)),
            "row": In(requantizer_output(spec.array)),
            "word": Out(stream.Signature(result_write_layout(spec), always_ready=True)),
            "drained": Out(1), "idle": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        depth = passes_in_flight(self.spec)
        m.submodules.queue = queue = Memory(shape=pass_layout(self.spec), depth=depth, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        pushed, popped = Signal(range(depth)), Signal(range(depth))
        m.d.comb += [write.en.eq(self.finished.valid), write.addr.eq(pushed),
                     write.data.eq(self.finished.payload), read.addr.eq(popped)]
        m.d.sync += pushed.eq(pushed + self.finished.valid)

        channel = Signal(range(SIZE))
        index = Signal(number_of(self.spec.array.units))
        address = Signal(result_address_bits(self.spec))
        gathered = [Signal(8 * self.spec.array.lanes, name=f"channel{r}", reset_less=True)
                    for r in range(SIZE - 1)]
        complete, pass_end = Signal(), Signal()
        with m.If(self.row.valid):
            m.d.sync += channel.eq(channel + 1)
            for r, register in enumerate(gathered):
                with m.If(channel == r):
                    m.d.sync += register.eq(self.row["values"].as_value())
        with m.If(self.row.valid & (channel == 0)):
            m.d.sync += address.eq(read.data.destination + index)
        m.d.comb += [complete.eq(self.row.valid & (channel == SIZE - 1)),
                     pass_end.eq(complete & (index + 1 == read.data.words)),
                     self.word.valid.eq(complete), self.word.p.address.eq(address),
                     self.word.p.word.eq(Cat(*gathered, self.row["values"].as_value())),
                     self.drained.eq(pass_end & read.data.tile_end)]
        waiting = Signal(range(depth))  # passes whose results are on their way
        m.d.sync += [
            waiting.eq(waiting + self.finished.valid - pass_end),
            self.idle.eq(~self.finished.valid & ((waiting == 0) | ((waiting == 1) & pass_end)))]
        with m.If(complete):
            m.d.sync += index.eq(Mux(pass_end, 0, index + 1))
        m.d.sync += popped.eq(popped + pass_end)
        return m
