"""Packet source: what the units that make tile packets on chip have in common."""

from dataclasses import dataclass

from amaranth.hdl import Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import read_port
from rtl_templates.packet_sections import PacketSections
from rtl_templates.tile_walk import TileWalk


@dataclass(frozen=True, kw_only=True)
class PacketFrame:
    """Parts of a packet source that hold a command and send its packets, one to a tile.

    Parameters
    ----------
    begin : Signal
        A command is taken.
    command : View
        The command, from the cycle after ``begin`` on.
    running : Signal
        From the cycle after ``begin`` to the last beat's entering the queue.
    walk : TileWalk
        Its tile is the one of the packet that is sent, or comes next.
    sections : PacketSections
    """

    begin: Signal
    command: data.View
    running: Signal
    walk: TileWalk
    sections: PacketSections


class PacketSource(wiring.Component):
    """Packets of :class:`rtl_templates.tile_format.TileFormat`, byte for byte, made from words of the buffer.

    Members
    -------
    command : :py:`In(stream.Signature(spec.command_layout()))`
        ``groups`` and ``columns`` at least 1.
    busy : :py:`Out(1)`
        From the cycle after the command to the last beat.
    read : :py:`Out(read_port(spec))`
    read_data : :py:`In(word_layout(spec))`
        ``spec.read_latency`` cycles after the enable.
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    def __init__(self, spec, **members):
        self.spec = spec
        super().__init__({
            "command": In(stream.Signature(spec.command_layout())), "busy": Out(1),
            "read": Out(read_port(spec)), "read_data": In(word_layout(spec)),
            "o": Out(stream.Signature(spec.tiles.bus_bits))} | members)

    def frame(self, m):
        """Adds the frame to a module; ``sections`` still needs its start, index, weights and constants."""
        spec = self.spec
        m.submodules.walk = walk = TileWalk(spec)
        m.submodules.sections = sections = PacketSections(spec, spec.weight_latency)
        begin, running, command = Signal(), Signal(), Signal(spec.command_layout())
        m.d.comb += [
            begin.eq(self.command.valid & self.command.ready),
            self.command.ready.eq(~self.busy), self.busy.eq(running | sections.o.valid),
            walk.start.eq(begin), walk.advance.eq(sections.done), sections.words.eq(walk.tile.words),
            *[walk.tensor[name].eq(self.command.p[name]) for name, _ in walk.tensor.shape()]]
        m.d.sync += running.eq(begin | (running & ~(sections.done & walk.tile.last)))
        with m.If(begin):
            m.d.sync += command.eq(self.command.payload)
        wiring.connect(m, sections.o, wiring.flipped(self.o))
        return PacketFrame(begin=begin, command=command, running=running, walk=walk, sections=sections)
