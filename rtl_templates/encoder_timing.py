"""Exact timing of the units of encoder layers: when their tiles are offered, and when they are idle.

KEYS, SOFTMAX, TRANSPOSE and NORM are dispatched once all four of these units are idle. Started at d,
``Timing.dispatch_to_unit`` after the dispatch,

* TRANSPOSE and NORM are idle at ``d + cycles(groups, columns) + 1``;
* KEYS and SOFTMAX offer the header of their first tile ``d + 3`` or later, as the ``times`` of their specs
  say; a tile whose header is taken at h is loaded at ``h + load_cycles``, and its unit is idle a
  cycle after that of its last tile.
"""

from rtl_templates.encoder_units import EncoderUnitSpecs
from rtl_templates.program_format import Flag, Opcode, Unit

ENCODER_UNITS = int(Unit.KEYS | Unit.SOFTMAX | Unit.TRANSPOSE | Unit.NORM)
"""A wait mask as a plain integer: arithmetic of enum members is slow, and explorations do much of it."""

TO_IDLE = 1
"""Cycles from a unit's last one to its being idle."""


class LocalTiles:
    """The tiles that one KEYS or SOFTMAX makes; ``tiles``: how many are left.

    Parameters
    ----------
    unit : PacketSourceSpec
    groups : int
        Token groups of the tensor whose tokens become rows.
    times : KeyTimes or SoftmaxTimes
    ksteps : int
        Of each tile.
    """

    def __init__(self, unit, groups, times, ksteps):
        self.times, self.ksteps = times, ksteps
        self.blocks, self.units = groups * unit.quarters, unit.units
        self.tiles = unit.tile_count(groups)
        self.idle_at = None

    def next(self, earliest):
        """(words, K-steps) of the next tile and the end of its loading, which may begin at ``earliest``."""
        end = self.times.taken(max(self.times.offered, earliest))
        words = min(self.units, self.blocks)
        self.blocks -= words
        self.tiles -= 1
        if not self.tiles:
            self.idle_at = end + TO_IDLE
        return (words, self.ksteps), end


class UnitTimes:
    """When the units are idle.

    Parameters
    ----------
    spec : AcceleratorSpec
    queue : deque
        Where the :class:`LocalTiles` go, in the order of their dispatch.
    """

    def __init__(self, spec, queue):
        self.queue = queue
        self.specs = None if spec.encoder is None else EncoderUnitSpecs(spec)
        self.idle_at, self.sources = {}, {}

    def idle(self, wait=ENCODER_UNITS):
        """First cycle in which all of these are idle."""
        for unit in list(self.sources):
            if unit & wait:
                source = self.sources.pop(unit)
                if source.idle_at is None:
                    raise ValueError(f"a descriptor waits for {Unit(unit).name} before a product took its "
                                     "tiles")
                self.idle_at[unit] = source.idle_at
        return max((time for unit, time in self.idle_at.items() if unit & wait), default=0)

    def start(self, descriptor, time, length):
        """Begin a descriptor's work in cycle ``time``."""
        opcode, unit = descriptor.opcode, int(Unit[descriptor.opcode.name])
        if opcode in (Opcode.KEYS, Opcode.SOFTMAX):
            self.sources[unit] = self._tiles(descriptor, time, length)
            self.queue.append(self.sources[unit])
        else:
            spec = self.specs.norm if opcode is Opcode.NORM else self.specs.transposer
            self.idle_at[unit] = time + spec.cycles(descriptor.groups, descriptor.length) + TO_IDLE

    def _tiles(self, descriptor, time, length):
        groups, columns = descriptor.groups, descriptor.length
        if descriptor.opcode is Opcode.KEYS:
            unit = self.specs.keys
            return LocalTiles(unit, groups, unit.times(columns, time), columns * unit.parts)
        unit = self.specs.softmax
        pruned = unit.prunes(descriptor.flags & Flag.MAP_PRUNING, length)
        return LocalTiles(unit, groups, unit.times(columns, time, pruned=pruned),
                          unit.ksteps(columns, pruned=pruned))
