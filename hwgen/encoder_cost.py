"""Cycles of whole encoders, estimated: what each descriptor takes if hardly anything runs beside it.

The linear layers and the units go by their closed formulas; overlap between them, and the few cycles of
dispatch and drain, are approximated.
"""

from rtl_templates.encoder_units import EncoderUnitSpecs
from rtl_templates.program_format import Flag, Opcode
from rtl_templates.slot_assignment import SIZE

DISPATCH_AND_DRAIN = 30
"""Cycles assumed around each descriptor that others wait for."""


def estimated_dispatches(plan, program):
    """Estimated dispatch cycle of every descriptor of an encoder program: list of int, END last."""
    units, spec = EncoderUnitSpecs(plan.spec), plan.spec
    linear = {index: name for name, index in program.matmuls.items()}
    now, source, tile_ksteps, times = 0, 0, 0, []
    for index, d in enumerate(program.descriptors):
        times.append(now)
        match d.opcode:
            case Opcode.LOAD | Opcode.STORE:
                now += d.length * spec.beats_per_word
            case Opcode.KEYS:
                source, tile_ksteps = units.keys.cycles(d.groups, d.length), d.length * units.keys.parts
            case Opcode.SOFTMAX:
                pruned = bool(d.flags & Flag.MAP_PRUNING) and program.tokens >= SIZE
                source = units.softmax.cycles(d.groups, d.length, pruned=pruned)
                tile_ksteps = units.softmax.ksteps(d.length, pruned=pruned)
            case Opcode.MATMUL if index in linear:
                now += _layer_cycles(plan.layer(linear[index]), spec, d.groups) + DISPATCH_AND_DRAIN
            case Opcode.MATMUL:
                tile = d.groups * max(tile_ksteps, SIZE * spec.array.units)
                now += max(source + tile, tile * d.tiles) + DISPATCH_AND_DRAIN
            case Opcode.TRANSPOSE:
                now += units.transposer.cycles(d.groups, d.length)
            case Opcode.NORM:
                now += units.norm.cycles(d.groups, d.length) + DISPATCH_AND_DRAIN
    return times


def _layer_cycles(layer, spec, groups):
    return sum(max(groups * max(ksteps, SIZE * words), spec.tiles.beats(ksteps))
               for words, ksteps in layer.tiles(spec.array.units))
