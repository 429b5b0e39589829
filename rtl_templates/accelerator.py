"""The accelerator: every component, wired; the flat top level, and its Verilog."""

from amaranth.hdl import Cat, ClockDomain, DomainRenamer, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect

from rtl_templates.activation_buffer import ActivationBuffer
from rtl_templates.activity import activity_layout, connect_activity
from rtl_templates.array_spec import PoolStorage
from rtl_templates.axi import (
    OUTSTANDING_BEATS,
    connect_address,
    connect_read_data,
    connect_write_data,
    lite_slave_members,
    read_master_members,
    write_master_members,
)
from rtl_templates.beat_fifo import BeatFifo
from rtl_templates.control_registers import POINTERS, ControlRegisters
from rtl_templates.emission import emit_component
from rtl_templates.encoder_units import EncoderUnits
from rtl_templates.gelu_table import GeluTable, GeluTableSpec
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.load_unit import LoadUnit
from rtl_templates.matmul_controller import MatmulController
from rtl_templates.pattern_array import PatternArray
from rtl_templates.pipeline import delay
from rtl_templates.register_map import ADDRESS_BITS
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.result_writer import ResultWriter
from rtl_templates.row_constants import RowConstants
from rtl_templates.sequencer import Sequencer
from rtl_templates.store_unit import StoreUnit
from rtl_templates.stream_reader import StreamReader
from rtl_templates.stream_writer import StreamWriter
from rtl_templates.tile_banks import TileBanks
from rtl_templates.tile_format import Table
from rtl_templates.tile_loader import TileLoader, marked

CONTROL, INPUTS_AND_OUTPUTS, WEIGHTS = "s_axi_control", "m_axi_gmem0", "m_axi_gmem1"


def top_members(spec):
    """Ports of the top level: dict from name to amaranth Member."""
    return {"ap_clk": In(1), "ap_rst_n": In(1), "interrupt": Out(1),
            **lite_slave_members(CONTROL, ADDRESS_BITS),
            **read_master_members(INPUTS_AND_OUTPUTS, spec.bus_bits),
            **write_master_members(INPUTS_AND_OUTPUTS, spec.bus_bits),
            **read_master_members(WEIGHTS, spec.bus_bits)}


class Accelerator(wiring.Component):
    """Top level, with the port names that vendor tools infer: flat, one clock, active-low synchronous reset.

    Everything but the control registers and the sequencer is reset at the end of every run, so that a run
    never depends on the one before. A reset in the middle of a run forgets bus transactions under way:
    reset the interconnect with it.

    Latency and throughput: :mod:`rtl_templates.prediction`.

    Members
    -------
    ap_clk, ap_rst_n, interrupt
    s_axi_control_* : AXI4-Lite slave, registers of :mod:`rtl_templates.register_map`
    m_axi_gmem0_* : AXI4 master: program, inputs and outputs
    m_axi_gmem1_* : AXI4 master, read channels only: weight stream
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__(top_members(spec))

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        in_control = DomainRenamer("control")
        m.submodules.registers = registers = in_control(ControlRegisters(spec))
        m.submodules.sequencer = sequencer = in_control(Sequencer(spec))
        m.submodules.buffer = buffer = ActivationBuffer(spec)
        m.submodules.weights = weights = StreamReader(spec.bus_bits)
        m.submodules.inputs = inputs = StreamReader(spec.bus_bits)
        m.submodules.outputs = outputs = StreamWriter(spec.bus_bits)
        m.submodules.loader = loader = TileLoader(spec)
        m.submodules.controller = controller = MatmulController(spec)
        m.submodules.results = results = ResultWriter(spec)

        self._domains(m, sequencer.clear)
        self._control(m, registers, sequencer)
        self._weights(m, weights, registers, sequencer, loader)
        self._transfers(m, inputs, outputs, sequencer, registers, buffer)
        self._array(m, loader, controller, results, buffer, registers)
        units = None if spec.encoder is None else self._encoder(m, sequencer, registers, loader, buffer)
        connect_activity(m, Signal(activity_layout, name="activity"), sequencer=sequencer, loader=loader,
                         controller=controller, results=results, weights=weights, units=units,
                         load=registers.load_cycles, store=registers.store_cycles)
        connect(m, controller.command, sequencer.matmul)
        m.d.comb += [
            sequencer.array_idle.eq(controller.idle & results.idle), sequencer.stream_error.eq(loader.error),
            sequencer.quiet.eq(Cat(inputs.quiet, weights.quiet, outputs.quiet))]
        streams = [inputs.ar, inputs.r, outputs.aw, outputs.w, outputs.b, weights.ar, weights.r, loader.i]
        if spec.encoder is not None:
            streams += [loader.local, buffer.unit_write]
        # What decides about ready comes late in a cycle; errors and progress can come a cycle later.
        moved = Signal(len(streams))
        m.d.control += [
            moved.eq(Cat(stream.valid & stream.ready for stream in streams)),
            sequencer.progress.eq(moved.any() | controller.issue.valid | sequencer.dispatched),
            sequencer.read_error.eq(inputs.error), sequencer.weight_error.eq(weights.error),
            sequencer.write_error.eq(outputs.error)]
        return m

    def _domains(self, m, clear):
        """``control`` lives through runs, ``sync`` is cleared after each; registered resets for both."""
        m.domains.free = free = ClockDomain("free", reset_less=True)
        m.domains.control = control = ClockDomain("control")
        m.domains.sync = sync = ClockDomain("sync")
        reset, sync_reset = Signal(init=1), Signal(init=1)
        free.clk = control.clk = sync.clk = self.ap_clk
        m.d.free += [reset.eq(~self.ap_rst_n), sync_reset.eq(~self.ap_rst_n | clear)]
        m.d.comb += [control.rst.eq(reset), sync.rst.eq(sync_reset)]

    def _control(self, m, registers, sequencer):
        for name in lite_slave_members("", ADDRESS_BITS):
            port, member = getattr(self, f"{CONTROL}{name}"), getattr(registers, f"bus{name}")
            incoming = lite_slave_members("", ADDRESS_BITS)[name].flow is In
            m.d.comb += member.eq(port) if incoming else port.eq(member)
        for name in ("start", "program_length", "sequences", "input_stride", "output_stride"):
            m.d.comb += getattr(sequencer, name).eq(getattr(registers, name))
        for name in ("taken", "running", "done", "status", "index", "dispatched"):
            m.d.comb += getattr(registers, name).eq(getattr(sequencer, name))
        bus_places = [getattr(registers, name)[:(self.spec.bus_bits // 8).bit_length() - 1]
                      for name in (*POINTERS, "input_stride", "output_stride")]
        m.d.comb += [self.interrupt.eq(registers.interrupt), sequencer.input_pointer.eq(registers.input),
                     sequencer.output_pointer.eq(registers.output),
                     sequencer.misaligned.eq(Cat(bus_places).any())]

    def _weights(self, m, reader, registers, sequencer, loader):
        m.submodules.fifo = fifo = BeatFifo(self.spec.bus_bits + 1, OUTSTANDING_BEATS)
        # The stream is asked for anew as soon as it has been asked for to its end, once per sequence.
        passes_left, more, again = Signal(32), Signal(), Signal()
        m.d.sync += more.eq(passes_left.any())
        m.d.comb += again.eq(reader.exhausted & more)
        with m.If(sequencer.launch):
            m.d.sync += passes_left.eq(registers.sequences - 1)
        with m.Elif(again):
            m.d.sync += passes_left.eq(passes_left - 1)
        m.d.comb += [fifo.i.valid.eq(reader.o.valid), fifo.i.payload.eq(marked(reader.o.payload)),
                     reader.o.ready.eq(fifo.i.ready)]
        connect(m, fifo.o, loader.i)
        m.d.comb += connect_address(self, f"{WEIGHTS}_ar", reader.ar, self.spec.bus_bits)
        m.d.comb += connect_read_data(self, WEIGHTS, reader.r)
        m.d.comb += [reader.start.eq(sequencer.launch | again), reader.address.eq(registers.weights),
                     reader.beats.eq(registers.weights_beats), reader.abort.eq(sequencer.abort),
                     reader.taken.eq(fifo.o.valid & fifo.o.ready)]
        m.d.control += sequencer.weights_left.eq(~reader.emptied | passes_left.any() | loader.holding)

    def _transfers(self, m, reader, writer, sequencer, registers, buffer):
        m.submodules.load = load = LoadUnit(self.spec)
        m.submodules.store = store = StoreUnit(self.spec)
        bus_bits, transfer = self.spec.bus_bits, sequencer.transfer
        connect(m, load.words, buffer.load)
        connect(m, store.addresses, buffer.store)
        connect(m, store.words, buffer.stored)
        connect(m, store.beats, writer.i)
        m.d.comb += connect_address(self, f"{INPUTS_AND_OUTPUTS}_ar", reader.ar, bus_bits)
        m.d.comb += connect_read_data(self, INPUTS_AND_OUTPUTS, reader.r)
        m.d.comb += connect_address(self, f"{INPUTS_AND_OUTPUTS}_aw", writer.aw, bus_bits)
        m.d.comb += connect_write_data(self, INPUTS_AND_OUTPUTS, writer.w)
        fetching = sequencer.fetching
        m.d.comb += [
            writer.b.valid.eq(getattr(self, f"{INPUTS_AND_OUTPUTS}_bvalid")),
            writer.b.payload.eq(getattr(self, f"{INPUTS_AND_OUTPUTS}_bresp")),
            getattr(self, f"{INPUTS_AND_OUTPUTS}_bready").eq(writer.b.ready),
            reader.start.eq(sequencer.launch | sequencer.load), reader.abort.eq(sequencer.abort),
            reader.address.eq(Mux(sequencer.launch, registers.program, transfer.address)),
            reader.beats.eq(Mux(sequencer.launch, sequencer.program_beats, transfer.beats)),
            reader.taken.eq(reader.r.valid & reader.r.ready),
            sequencer.program.payload.eq(reader.o.payload), load.beats.payload.eq(reader.o.payload),
            sequencer.program.valid.eq(reader.o.valid & fetching),
            load.beats.valid.eq(reader.o.valid & ~fetching),
            reader.o.ready.eq((fetching & sequencer.program.ready) | (~fetching & load.beats.ready)),
            load.start.eq(sequencer.load), load.destination.eq(transfer.destination),
            load.length.eq(transfer.length),
            store.start.eq(sequencer.store), store.source.eq(transfer.source),
            store.length.eq(transfer.length), store.abort.eq(sequencer.abort),
            writer.start.eq(sequencer.store), writer.address.eq(transfer.address),
            writer.beats.eq(transfer.beats), writer.abort.eq(sequencer.abort),
            sequencer.load_idle.eq(~load.busy), sequencer.store_idle.eq(~writer.busy),
            registers.load_cycles.eq(load.busy), registers.store_cycles.eq(writer.busy)]

    def _array(self, m, loader, controller, results, buffer, registers):
        spec = self.spec
        m.submodules.banks = banks = TileBanks(spec)
        m.submodules.fetch = fetch = KStepFetch(spec)
        m.submodules.array = array = PatternArray(spec.array)
        m.submodules.constants = constants = RowConstants(spec)
        m.submodules.requantizer = requantizer = RowRequantizer(spec.array)
        connect(m, loader.tile, controller.tile)
        connect(m, controller.finished, results.finished)
        connect(m, results.word, buffer.result)
        m.d.comb += [
            banks.write.eq(loader.write), loader.release.eq(controller.release),
            loader.drained.eq(results.drained),
            fetch.issue.eq(controller.issue), array.kstep.eq(fetch.kstep),
            banks.index_bank.eq(fetch.index_bank), banks.index_kstep.eq(fetch.index_kstep),
            fetch.index.eq(banks.index),
            banks.weights_bank.eq(fetch.weights_bank), banks.weights_kstep.eq(fetch.weights_kstep),
            fetch.weights.eq(banks.weights),
            buffer.read_address.eq(fetch.activation_address), fetch.activation.eq(buffer.read_word),
            constants.issue.eq(controller.issue), banks.constants_slot.eq(constants.slot),
            banks.constants_row.eq(constants.row), constants.packed.eq(banks.constants),
            requantizer.i.valid.eq(array.result.valid), requantizer.i.sums.eq(array.result.sums),
            requantizer.i.bias.eq(constants.constants.bias),
            requantizer.i.multiplier.eq(constants.constants.multiplier),
            requantizer.i.shift.eq(constants.constants.shift),
            registers.saturated.eq(Mux(requantizer.o.valid, requantizer.o.saturated, 0)),
            registers.busy_cycles.eq(controller.issue.valid),
            registers.weight_wait_cycles.eq(controller.weight_wait),
            registers.drain_wait_cycles.eq(controller.drain_wait),
            registers.tiles.eq(controller.tile.valid & controller.tile.ready)]
        if spec.array.storage is PoolStorage.RAM:
            m.d.comb += array.pool.eq(registers.pool)
        if spec.encoder is None:
            m.d.comb += results.row.eq(requantizer.o)
        else:
            self._gelu(m, loader.table, constants.constants, requantizer.o, results)

    def _gelu(self, m, table, constants, row, results):
        """Requantized rows go through the GELU table, looked up or not."""
        m.submodules.gelu = gelu = GeluTable(GeluTableSpec(lanes=self.spec.array.lanes))
        flags = Cat(constants.gelu, constants.outlier, constants.gelu_bank)
        flags = delay(m, flags, RowRequantizer.LATENCY, "gelu_flags")
        m.d.comb += [Cat(gelu.look_up, gelu.outlier, gelu.bank).eq(flags), gelu.i.eq(row),
                     results.row.eq(gelu.o),
                     gelu.table.enable.eq(table.enable & (table.id == Table.GELU)),
                     gelu.table.bank.eq(table.bank), gelu.table.address.eq(table.address),
                     gelu.table.data.eq(table.data)]

    def _encoder(self, m, sequencer, registers, loader, buffer):
        m.submodules.units = units = EncoderUnits(self.spec)
        connect(m, units.packets, loader.local)
        connect(m, units.write, buffer.unit_write)
        m.d.comb += [
            units.start.eq(sequencer.unit), units.operands.eq(sequencer.operands),
            units.valid_length.eq(registers.valid_length), registers.sequence.eq(sequencer.sequence),
            sequencer.valid_length.eq(registers.valid_length),
            sequencer.units_idle.eq(units.idle), units.table.eq(loader.table),
            buffer.unit_enable.eq(units.main_enable), buffer.unit_address.eq(units.main_address),
            units.main_word.eq(buffer.read_word),
            buffer.side_address.eq(units.side_address), units.side_word.eq(buffer.side_word)]
        return units


def emit_verilog(spec):
    """Verilog-2005 of the accelerator: one string, the same for the same spec; top module ``accelerator``.

    Parameters
    ----------
    spec : AcceleratorSpec
    """
    return emit_component(Accelerator(spec), "accelerator")
