"""Exact cycles of a run: the recursion that adds up the latencies of its components.

Times are clock cycles from the first cycle of the run, 0, in which the program and the weight stream are
asked for. They hold for the nominal memory, see :mod:`rtl_templates.timing`; the names below are the
properties of its :class:`~rtl_templates.timing.Timing`.

Program: of B beats, the last arrives at ``f = address + read_latency + B - 1``; the first descriptor can be
dispatched at ``f + fetch_to_dispatch``, the next at the earliest ``dispatch_interval`` after the one
before. A descriptor is dispatched once every unit in its wait mask is idle, and

* LOAD and STORE: once both of these units are idle;
* MATMUL: once ``accept_next`` has passed since the last tile of the MATMUL before was taken;
* END: once all units are idle; ``cycles = dispatch + end_to_done``.

LOAD of n words dispatched at d: the last beat arrives at
``r = d + dispatch_to_unit + address + read_latency + (n - 1) * word_interval + beats_per_word - 1``, one
cycle later if the first burst is a single beat that others follow (addresses are offered every second cycle)
and beats are not paused anyway. Idle at ``r + load_to_idle``.

STORE of n words dispatched at d: the last beat leaves at
``w = d + store_to_beat + (n - 1) * word_interval + beats_per_word - 1``. Idle at
``w + write_latency + response_to_idle``.

Tiles, i counted over the whole run, with K_i K-steps, W_i words, b_i beats, G token groups, D the dispatch
of their MATMUL; s_i is the beats of all tiles before:

* load begins: ``h_i = max(e_{i-1} + 1, weights_ready + s_i, L_{i-2} + release_to_load,
  drained_{i-4} + release_to_load)``: the stream, a free bank, a free slot of row constants;
* load ends: ``e_i = h_i + b_i - 1``;
* taken by the controller: ``a_i = max(e_i + loaded_to_take, L_{i-1}, D + dispatch_to_take)``, where D is
  only there for the first tile of a MATMUL;
* last K-step of the first pass: ``l_i = max(a_i + K_i, L_{i-1} + 4 W_{i-1})``; the K-steps before it never
  wait;
* last K-step of all: ``L_i = l_i + (G - 1) * max(K_i, 4 W_i)``;
* last result requantized: ``drained_i = L_i + result_latency + 4 W_i - 1``.

The array is idle at ``drained_i + drained_to_idle`` of its last tile.

With an encoder the results go through the GELU table on top of the requantizer. A table of n beats of E
entries takes ``1 + n * E`` cycles of the loader, a local header 1; neither waits for a bank. The times of
tiles that are made on chip, and of the units of encoder layers, are those of
:mod:`rtl_templates.encoder_timing`; h_i waits for the tile's header instead of for the stream.

With several sequences, END of all but the last only waits for all units; the next sequence's first
descriptor follows it as any other would, and the weight stream begins anew without a gap.
"""

import functools
import itertools
from collections import deque
from dataclasses import dataclass

from rtl_templates.encoder_timing import ENCODER_UNITS, UnitTimes
from rtl_templates.program_format import Opcode, Unit
from rtl_templates.sequencer import ENCODER_OPCODES
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_banks import SLOTS
from rtl_templates.tile_format import Table
from rtl_templates.timing import NominalMemory, Timing

LOAD, ARRAY, STORE = (int(unit) for unit in (Unit.LOAD, Unit.ARRAY, Unit.STORE))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run's registers will hold.

    Parameters
    ----------
    cycles : int
    dispatches : list of int
        Dispatch time of each descriptor, as in the profile window.
    busy, weight_wait, drain_wait, load, store : int
        The counters ``busy_cycles``, ``weight_wait_cycles``, ``drain_wait_cycles``, ``load_cycles``,
        ``store_cycles``.
    """

    cycles: int
    dispatches: list
    busy: int
    weight_wait: int
    drain_wait: int
    load: int
    store: int


@dataclass(frozen=True)
class TablePacket:
    """A table in the weight stream: which, and beats of its payload."""

    table: Table
    beats: int


@dataclass(frozen=True)
class LocalPacket:
    """A header in the weight stream: so many tiles are made on chip."""

    tiles: int


class _Tiles:
    """The recursion over the tiles of a run; ``product`` advances it by one MATMUL."""

    def __init__(self, timing, tiles, memory):
        self.timing = timing
        self.items = iter(tiles)
        self.local_left, self.sources = 0, deque()
        self.beats = functools.cache(timing.spec.tiles.beats)
        self.result_latency = timing.result_latency
        self.streamed = timing.weights_ready + memory.read_latency  # weights_ready + s_i
        self.load_end = -1
        self.last, self.last_words = -1, 0  # L and W of the tile before
        self.before_last = -1  # L of the one before that
        self.drained = deque([-1] * SLOTS, SLOTS)
        self.accepts_at = self.idle_at = 0
        self.busy = self.weight_wait = self.drain_wait = 0

    def product(self, dispatch, groups, count):
        timing = self.timing
        want = dispatch + timing.dispatch_to_take
        for _ in range(count):
            words, ksteps = self._load()
            rows = SIZE * words
            loaded = self.load_end + timing.loaded_to_take
            self.weight_wait += max(0, loaded - max(self.last + 1, want))
            taken = max(loaded, self.last, want)
            unhindered = taken + timing.take_to_issue + ksteps - 1
            last = max(unhindered, self.last + SIZE * self.last_words)
            self.drain_wait += last - unhindered + (groups - 1) * max(0, rows - ksteps)
            self.busy += groups * ksteps
            self.before_last = self.last
            self.last, self.last_words = last + (groups - 1) * max(ksteps, rows), words
            self.drained.append(self.last + self.result_latency + rows - 1)
            want = taken + 1
        self.accepts_at = taken + timing.accept_next
        self.idle_at = self.drained[-1] + timing.drained_to_idle

    def _load(self):
        """Load the next tile, and what comes before it in the stream; its words and K-steps."""
        timing = self.timing
        while not self.local_left:
            item = next(self.items, None)
            begin = max(self.load_end + 1, self.streamed)
            if isinstance(item, TablePacket):
                self.load_end = begin + timing.table_cycles(item)
                self.streamed += 1 + item.beats
            elif isinstance(item, LocalPacket):
                self.load_end, self.local_left = begin, item.tiles
                self.streamed += 1
            elif item is None:
                raise ValueError("the program consumes more tiles than the weight stream has")
            else:
                beats = self.beats(item[1])
                self.load_end = max(begin, self._free()) + beats - 1
                self.streamed += beats
                return item
        self.local_left -= 1
        if not self.sources:
            raise ValueError("a product comes before the KEYS or SOFTMAX that makes its tiles")
        tile, self.load_end = self.sources[0].next(max(self.load_end + 1, self._free()))
        if not self.sources[0].tiles:
            self.sources.popleft()
        return tile

    def _free(self):
        """First cycle with a free bank and a free slot of row constants."""
        return max(self.before_last, self.drained[0]) + self.timing.release_to_load


def predict(spec, descriptors, tiles, memory=None, lengths=(0,)):
    """Exact cycles of a program under the nominal memory; see the recursion above.

    Parameters
    ----------
    spec : AcceleratorSpec
    descriptors : sequence of Descriptor
        A complete program; the last is END.
    tiles : sequence of (words, ksteps), :class:`TablePacket` or :class:`LocalPacket`
        The weight stream, in order; tiles by output words and K-steps.
    memory : optional
        Anything with ``read_latency`` and ``write_latency``; :class:`NominalMemory` unless given.
    lengths : sequence of int, optional
        Valid length of each sequence; one sequence unless given. Only map pruning makes them count.

    Returns
    -------
    Prediction
        Its dispatches are those of the last sequence.

    Raises
    ------
    ValueError
        If a latency is too long for an exact prediction, or the program consumes more tiles than there
        are.

    A hundred thousand tiles take a fraction of a second.
    """
    timing = Timing(spec)
    memory = NominalMemory() if memory is None else memory
    for name in ("read_latency", "write_latency"):
        if not 1 <= getattr(memory, name) < timing.read_latency_limit:
            raise ValueError(f"{name} must be 1 to {timing.read_latency_limit - 1} cycles for an exact "
                             f"prediction, not {getattr(memory, name)}")
    needed = sum(d.tiles for d in descriptors if d.opcode is Opcode.MATMUL)
    present = sum(item.tiles if isinstance(item, LocalPacket) else 1 for item in tiles
                  if not isinstance(item, TablePacket))
    if needed > present:
        raise ValueError(f"the program consumes {needed} tiles; the weight stream has {present}")

    array = _Tiles(timing, itertools.chain.from_iterable(itertools.repeat(tiles, len(lengths))), memory)
    units = UnitTimes(spec, array.sources)
    ready = (timing.address + memory.read_latency + timing.program_beats(len(descriptors)) - 1
             + timing.fetch_to_dispatch)
    load_idle = store_idle = 0
    load = store = 0
    dispatches = []
    for length, descriptor in itertools.product(lengths, descriptors):
        opcode, wait = descriptor.opcode, int(descriptor.wait)
        idle = max(load_idle * bool(wait & LOAD), array.idle_at * bool(wait & ARRAY),
                   store_idle * bool(wait & STORE))
        if wait & ENCODER_UNITS:
            idle = max(idle, units.idle(wait))
        if opcode is Opcode.END:
            idle = max(load_idle, array.idle_at, store_idle, units.idle())
        elif opcode in ENCODER_OPCODES:
            idle = max(idle, units.idle())
        elif opcode is not Opcode.MATMUL:
            idle = max(idle, load_idle, store_idle)
        time = max(ready, idle + timing.idle_to_dispatch)
        if opcode is Opcode.MATMUL:
            time = max(time, array.accepts_at)
            array.product(time, descriptor.groups, descriptor.tiles)
        elif opcode in ENCODER_OPCODES:
            units.start(descriptor, time + timing.dispatch_to_unit, length)
        elif opcode is Opcode.LOAD:
            load_idle = time + timing.load_cycles(descriptor, memory)
            load += load_idle - time - timing.dispatch_to_unit - 1
        elif opcode is Opcode.STORE:
            store_idle = time + timing.store_cycles(descriptor, memory)
            store += store_idle - time - timing.dispatch_to_unit - 1
        dispatches.append(time)
        ready = time + timing.dispatch_interval
    return Prediction(cycles=dispatches[-1] + timing.end_to_done,
                      dispatches=dispatches[-len(descriptors):], busy=array.busy,
                      weight_wait=array.weight_wait, drain_wait=array.drain_wait, load=load, store=store)
