"""Matmul controller: issues the K-steps of a product, tile by tile, pass by pass."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.record_memory import number_of
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_banks import BANKS, SLOTS
from rtl_templates.tile_loader import tile_layout

COUNT_BITS = 16
STRIDE_BITS = 16


def address_bits(spec):
    """Width of a word address in the activation buffer."""
    return max(1, (spec.activation_words - 1).bit_length())


def result_address_bits(spec):
    """Width of the address of a result: with an encoder, its top bit selects the side bank."""
    if spec.encoder is None:
        return address_bits(spec)
    return unit_address_bits(spec) + 1


def unit_address_bits(spec):
    """Width of a word address in either bank."""
    return max(address_bits(spec), (spec.encoder.side_words - 1).bit_length())


def flag_fields(spec):
    """Flags of a MATMUL that go with its results, in the order of their bits; none without an encoder."""
    return {} if spec.encoder is None else {"gelu": 1, "gelu_bank": 1}


def command_layout(spec):
    """A MATMUL descriptor, as dispatched; counts are at least 1."""
    address = address_bits(spec)
    return data.StructLayout({"groups": COUNT_BITS, "tiles": COUNT_BITS, "source": address,
                              "destination": result_address_bits(spec), "source_stride": STRIDE_BITS,
                              "destination_stride": STRIDE_BITS, **flag_fields(spec)})


def issue_layout(spec):
    """A K-step on its way to the array: its place in the bank and the word address of its token group."""
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "bank": range(BANKS),
                              "kstep": number_of(spec.tile_ksteps), "base": address_bits(spec),
                              "words": range(spec.array.units + 1), "slot": range(SLOTS),
                              **flag_fields(spec)})


def pass_layout(spec):
    """A finished pass: word address of its results, their number, and whether its tile ends."""
    return data.StructLayout({"destination": result_address_bits(spec), "words": range(spec.array.units + 1),
                              "tile_end": 1})


class MatmulController(wiring.Component):
    """Loops over tiles, token groups and K-steps; one K-step per cycle.

    The only wait inside a pass is before its last K-step, until the results of the pass before have left
    the array: two last K-steps are at least 4 * words cycles apart, words being those of the earlier
    pass. There is no bubble between passes, nor between tiles, nor between commands if the next is there.

    Latency: ``DISPATCH`` clock cycles from a command to its tile being taken, ``TILE`` from there to the
    first K-step. A command is accepted from the cycle after the last tile of the one before was taken.

    Members
    -------
    command : :py:`In(stream.Signature(command_layout(spec)))`
    tile : :py:`In(stream.Signature(tile_layout(spec)))`
    issue : :py:`Out(issue_layout(spec))`
    release : :py:`Out(1)`
        With the last K-step of a tile.
    finished : :py:`Out(stream.Signature(pass_layout(spec), always_ready=True))`
        With the last K-step of a pass.
    idle : :py:`Out(1)`
        Nothing to issue. Results may still be on their way.
    weight_wait : :py:`Out(1)`
        A tile is wanted and not there.
    drain_wait : :py:`Out(1)`
        A last K-step waits for results to leave.
    """

    DISPATCH = 1
    TILE = 1

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "command": In(stream.Signature(command_layout(spec))),
            "tile": In(stream.Signature(tile_layout(spec))), "issue": Out(issue_layout(spec)),
            "release": Out(1), "finished": Out(stream.Signature(pass_layout(spec), always_ready=True)),
            "idle": Out(1), "weight_wait": Out(1), "drain_wait": Out(1)})

    def elaborate(self, platform):
        m = Module()
        address = address_bits(self.spec)
        command = Signal(command_layout(self.spec))  # `tiles` and `destination`: of the tiles still to take
        waiting = Signal()  # a tile of the command is still to be taken
        tile = Signal(tile_layout(self.spec))
        running = Signal()
        base, destination = Signal(address), Signal(result_address_bits(self.spec))
        flags = {name: Signal(name=name) for name in flag_fields(self.spec)}
        source_stride, destination_stride = Signal(STRIDE_BITS), Signal(STRIDE_BITS)
        groups_left = Signal(COUNT_BITS)
        last_group = Signal()
        kstep = Signal(number_of(self.spec.tile_ksteps))
        first, last = Signal(), Signal()
        ends = Signal()  # last, of the last group: many registers wait for what comes after it
        draining = Signal(range(SIZE * self.spec.array.units))
        held = Signal()  # draining is not 0

        step, pass_end, tile_end, take, accept = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            step.eq(running & ~(last & held)), pass_end.eq(step & last),
            tile_end.eq(pass_end & last_group), self.tile.ready.eq(waiting & (~running | (ends & ~held))),
            take.eq(self.tile.valid & self.tile.ready), self.command.ready.eq(~waiting),
            accept.eq(self.command.valid & self.command.ready),
            self.release.eq(tile_end), self.idle.eq(~waiting & ~running),
            self.weight_wait.eq(waiting & ~running & ~self.tile.valid),
            self.drain_wait.eq(running & ~step),
            self.issue.valid.eq(step), self.issue.first.eq(first), self.issue.last.eq(pass_end),
            self.issue.bank.eq(tile.bank), self.issue.kstep.eq(kstep), self.issue.base.eq(base),
            self.issue.words.eq(tile.words), self.issue.slot.eq(tile.slot),
            *[self.issue[name].eq(flag) for name, flag in flags.items()],
            self.finished.valid.eq(pass_end), self.finished.p.destination.eq(destination),
            self.finished.p.words.eq(tile.words), self.finished.p.tile_end.eq(last_group)]

        with m.If(accept):
            m.d.sync += [command.eq(self.command.payload), waiting.eq(1)]
        with m.If(take):
            m.d.sync += [command.tiles.eq(command.tiles - 1), waiting.eq(command.tiles != 1),
                         command.destination.eq(command.destination + self.tile.p.words)]

        # Flags of the coming cycle are computed ahead: the counters stay out of the issue path.
        single = tile.last_kstep == 0
        with m.If(step):
            m.d.sync += [kstep.eq(kstep + 1), first.eq(0), last.eq(kstep + 1 == tile.last_kstep),
                         ends.eq((kstep + 1 == tile.last_kstep) & last_group)]
        with m.If(pass_end):
            m.d.sync += [kstep.eq(0), first.eq(1), last.eq(single), base.eq(base + source_stride),
                         destination.eq(destination + destination_stride),
                         groups_left.eq(groups_left - 1), last_group.eq(groups_left == 2),
                         ends.eq(single & (groups_left == 2))]
        with m.If(take):
            m.d.sync += [tile.eq(self.tile.payload), kstep.eq(0), first.eq(1),
                         last.eq(self.tile.p.last_kstep == 0), base.eq(command.source),
                         destination.eq(command.destination), source_stride.eq(command.source_stride),
                         destination_stride.eq(command.destination_stride),
                         *[flag.eq(command[name]) for name, flag in flags.items()],
                         groups_left.eq(command.groups), last_group.eq(command.groups == 1),
                         ends.eq((self.tile.p.last_kstep == 0) & (command.groups == 1))]
        m.d.sync += running.eq(take | (running & ~tile_end))
        m.d.sync += draining.eq(Mux(pass_end, (tile.words << 2) - 1, draining - held))
        m.d.sync += held.eq(pass_end | draining[1:].any())
        return m
