"""Hazards between descriptors: who waits for whom, from the ranges of the activation buffer they touch."""

from dataclasses import replace

from rtl_templates.program_format import Opcode, Unit

UNIT_OF = {Opcode.LOAD: Unit.LOAD, Opcode.MATMUL: Unit.ARRAY, Opcode.STORE: Unit.STORE}


def with_waits(descriptors):
    """Set the wait masks that data hazards need, and no others.

    Descriptors are dispatched in order. A load or store is dispatched when its unit is idle, hence
    after every earlier one of its kind. A MATMUL may be dispatched while the one before it still
    writes results; the array works in order, so only reading those results needs a wait.
    """
    waiting, running = [], []
    for descriptor in descriptors:
        unit = UNIT_OF[descriptor.opcode]
        reads, writes = accesses(descriptor)
        if unit is not Unit.ARRAY:
            running = [other for other in running if other[0] is not unit]
        wait = Unit(0)
        for other_unit, other_reads, other_writes in running:
            in_order = other_unit is unit
            if _overlap(reads, other_writes) or (not in_order and (
                    _overlap(writes, other_writes) or _overlap(writes, other_reads))):
                wait |= other_unit
        running = [other for other in running if not other[0] & wait]
        running.append((unit, reads, writes))
        waiting.append(replace(descriptor, wait=wait))
    return waiting


def accesses(descriptor):
    """Ranges of the activation buffer that a descriptor reads and writes: (first, end), or (0, 0) if none."""
    source, destination = descriptor.source, descriptor.destination
    if descriptor.opcode is Opcode.LOAD:
        return (0, 0), (destination, destination + descriptor.length)
    if descriptor.opcode is Opcode.STORE:
        return (source, source + descriptor.length), (0, 0)
    # Tensors are contiguous: a stride is the words of one token group.
    return ((source, source + descriptor.groups * descriptor.source_stride),
            (destination, destination + descriptor.groups * descriptor.destination_stride))


def _overlap(one, other):
    return max(one[0], other[0]) < min(one[1], other[1])
