"""Hazards between descriptors: who waits for whom, from the words and the ports of the buffer they use."""

from dataclasses import dataclass, replace

from rtl_templates.program_format import SIDE_BANK, Opcode, Unit
from rtl_templates.word_format import CHANNELS, token_groups

UNIT_OF = {Opcode.LOAD: Unit.LOAD, Opcode.MATMUL: Unit.ARRAY, Opcode.STORE: Unit.STORE,
           Opcode.KEYS: Unit.KEYS, Opcode.SOFTMAX: Unit.SOFTMAX, Opcode.TRANSPOSE: Unit.TRANSPOSE,
           Opcode.NORM: Unit.NORM}

SHARED_PORTS = ({Unit.ARRAY, Unit.LOAD}, {Unit.ARRAY, Unit.STORE})
"""Pairs of units of which one gives way to the other at a port; no other pair may use one together."""


@dataclass(frozen=True)
class Access:
    """Words of the activation buffer that a descriptor reads or writes: ``first`` to before ``end``.

    Addresses include SIDE_BANK; no range reaches from one bank into the other.
    """

    first: int
    end: int
    writes: bool

    @property
    def port(self):
        """The port that it goes through: bank and direction."""
        return bool(self.first & SIDE_BANK), self.writes

    def conflicts(self, other):
        """Whether the order of the two matters."""
        return (self.writes or other.writes) and max(self.first, other.first) < min(self.end, other.end)


def with_waits(descriptors, *, lanes=None):
    """Set the wait masks that hazards need, and no others.

    Descriptors are dispatched in order, each when its unit is idle, hence after every earlier one of
    its kind. Only a MATMUL may be dispatched while the one before it still writes results; the array
    works in order, so only reading those results needs a wait.

    Parameters
    ----------
    descriptors : sequence of Descriptor
        Without END.
    lanes : int, optional
        Token lanes T; needed for transpositions.

    Returns
    -------
    list of Descriptor
    """
    waiting, running = [], []
    for descriptor in descriptors:
        unit = UNIT_OF[descriptor.opcode]
        mine = accesses(descriptor, lanes)
        if unit is not Unit.ARRAY:
            running = [other for other in running if other[0] is not unit]
        wait = Unit(0)
        for other_unit, theirs in running:
            if _must_wait(unit, mine, other_unit, theirs):
                wait |= other_unit
        running = [other for other in running if not other[0] & wait]
        running.append((unit, mine))
        waiting.append(replace(descriptor, wait=wait))
    return waiting


def accesses(descriptor, lanes=None):
    """The accesses of a descriptor, ranges of several token groups as one: list of Access."""
    d = descriptor
    # A stride is the words of one token group, of all heads; length, where it is given, those of one head.
    source = _range(d.source, d.groups, d.source_stride, d.length or d.source_stride, writes=False)
    match d.opcode:
        case Opcode.LOAD:
            return [Access(d.destination, d.destination + d.length, writes=True)]
        case Opcode.STORE:
            return [Access(d.source, d.source + d.length, writes=False)]
        case Opcode.KEYS | Opcode.SOFTMAX:
            return [source]
        case Opcode.TRANSPOSE:
            groups = token_groups(CHANNELS * d.length, lanes)
            return [source, _range(d.destination, groups, d.destination_stride, d.tiles, writes=True)]
        case Opcode.NORM:
            return [source, _range(d.offset, d.groups, d.source_stride, d.length, writes=False),
                    _range(d.destination, d.groups, d.destination_stride, d.length, writes=True)]
    return [source, _range(d.destination, d.groups, d.destination_stride, d.destination_stride, writes=True)]


def _range(first, groups, stride, words, *, writes):
    return Access(first, first + (groups - 1) * stride + words, writes)


def _must_wait(unit, mine, other_unit, theirs):
    if unit is other_unit:
        return any(a.conflicts(b) for a in mine for b in theirs if b.writes and not a.writes)
    if any(a.conflicts(b) for a in mine for b in theirs):
        return True
    return {unit, other_unit} not in SHARED_PORTS and bool({a.port for a in mine} & {b.port for b in theirs})
