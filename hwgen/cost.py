"""What a plan costs: clock cycles, bytes of memory traffic, useful work. Exact, not estimated.

Cycles come from rtl_templates.prediction, the recursion that equals simulation with the nominal memory.
Useful MACs are the weights that a layer's structure keeps (8 a block for a pattern that keeps 8 of 16,
16 for a dense block, none for an absent one) times tokens; utilization is useful MACs divided by
multipliers x cycles.
"""

from dataclasses import asdict, dataclass
from typing import Any

from hwgen.encoder_program import EncoderProgram, whole_program
from hwgen.encoder_stream import stream_items
from hwgen.memory_image import block_parts
from hwgen.plan import LayerPlan, Plan
from hwgen.program import Program
from rtl_templates.prediction import predict
from rtl_templates.program_format import DESCRIPTOR_BYTES
from rtl_templates.slot_assignment import SIZE
from rtl_templates.timing import NominalMemory


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer in a program.

    Parameters
    ----------
    name, structure : str
    rows, inner : int
    tiles, ksteps : int
        Tiles, and their K-steps in total (for one token group).
    cycles : int
        From the dispatch of its product to that of the next one, or to the end of the run.
    array_cycles : int
        Passes alone: groups x max(K-steps, 4 x output words), summed over tiles.
    dense_array_cycles : int
        The same if the layer were dense.
    useful_macs : int
    utilization : float
        useful_macs / (multipliers x cycles).
    weight_bytes, input_bytes, output_bytes : int
        Memory traffic; an input that stays on the chip is 0.
    """

    name: str
    structure: str
    rows: int
    inner: int
    tiles: int
    ksteps: int
    cycles: int
    array_cycles: int
    dense_array_cycles: int
    useful_macs: int
    utilization: float
    weight_bytes: int
    input_bytes: int
    output_bytes: int


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """A program on a plan's accelerator; totals over everything from start to done.

    ``program_bytes`` counts the descriptors; ``whole_encoder`` tells whether attention and LayerNorm
    lie between the layers; the other fields are as in :class:`LayerCost`, useful MACs are those of the
    linear layers.
    """

    tokens: int
    multipliers: int
    layers: tuple[LayerCost, ...]
    cycles: int
    array_cycles: int
    dense_array_cycles: int
    useful_macs: int
    utilization: float
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    program_bytes: int
    whole_encoder: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def stream_tiles(plan, program):
    """Pairs (output words, K-steps) of the tiles that a program consumes, in order."""
    units = plan.spec.array.units
    return [tile for name in program.layers for tile in plan.layer(name).tiles(units)]


def predict_program(plan: Plan, program: Program, memory: Any = None) -> Any:
    """Exact cycles of a program: rtl_templates.prediction.Prediction."""
    whole = isinstance(program, EncoderProgram)
    items = stream_items(plan, program.tokens) if whole else stream_tiles(plan, program)
    return predict(plan.spec, program.descriptors, items, memory or NominalMemory(), (program.tokens,))


def program_cycles(plan: Plan) -> int:
    """Cycles of the program that a build of the plan runs on its longest sequence."""
    return predict_program(plan, whole_program(plan)).cycles


def cost_report(plan: Plan, program: Program | EncoderProgram,
                memory: NominalMemory | None = None) -> CostReport:
    """Cost of a program, layer by layer.

    Parameters
    ----------
    plan : hwgen.plan.Plan
    program : hwgen.program.Program
    memory : optional
        Memory timing; the nominal one of rtl_templates.timing unless given.

    Returns
    -------
    CostReport
    """
    prediction = predict_program(plan, program, memory)
    cycles, dispatches = prediction.cycles, prediction.dispatches
    if isinstance(program, EncoderProgram):
        ends = [dispatches[program.matmuls[name] + 1] for name in program.layers]
    else:
        ends = [dispatches[program.matmuls[name]] for name in program.layers[1:]] + [cycles]
    multipliers = plan.spec.array.multipliers
    starts = [dispatches[program.matmuls[name]] for name in program.layers]
    layers = tuple(_layer_cost(plan, program, name, end - start)
                   for name, start, end in zip(program.layers, starts, ends, strict=True))

    def total(field):
        return sum(getattr(layer, field) for layer in layers)

    return CostReport(
        tokens=program.tokens, multipliers=multipliers, layers=layers, cycles=cycles,
        whole_encoder=isinstance(program, EncoderProgram),
        array_cycles=total("array_cycles"), dense_array_cycles=total("dense_array_cycles"),
        useful_macs=total("useful_macs"),
        utilization=total("useful_macs") / (multipliers * cycles),
        weight_bytes=total("weight_bytes"), input_bytes=sum(t.bytes for t in program.inputs),
        output_bytes=sum(t.bytes for t in program.outputs),
        program_bytes=DESCRIPTOR_BYTES * len(program.descriptors))


def encoder_macs(plan, tokens):
    """Useful MACs of a whole encoder on one sequence, padding included.

    Weights that the layers keep times tokens, and of attention the scores, and the context's entries that
    map pruning keeps.

    Parameters
    ----------
    plan : hwgen.plan.Plan
        Of an accelerator with encoder units.
    tokens : int
    """
    encoder, masks = plan.spec.encoder, plan.spec.array.assignment.masks
    share = masks[list(encoder.map_entries)].mean() if encoder.map_entries else 1
    macs = tokens * sum(layer.kept_weights for layer in plan.layers)
    for one in plan.attention:
        kept = share if one.map_pruning else 1
        macs += one.heads * tokens**2 * (one.key_size + kept * one.value_size)
    return round(macs)


def array_cycles(layer: LayerPlan, units: int, groups: int) -> int:
    """Cycles of a layer's passes.

    Parameters
    ----------
    layer : hwgen.plan.LayerPlan
    units, groups : int
        Block units R and token groups.
    """
    return groups * sum(max(ksteps, SIZE * words) for words, ksteps in layer.tiles(units))


def dense_array_cycles(layer, array, groups):
    """Cycles of the passes if every block of the layer were present and dense."""
    ksteps = layer.columns * block_parts("dense", array.assignment.slots)
    return groups * sum(max(ksteps, SIZE * words) for words, _ in layer.tiles(array.units))


def _layer_cost(plan, program, name, cycles):
    layer, array = plan.layer(name), plan.spec.array
    groups = plan.groups(program.tokens)
    macs = layer.kept_weights * program.tokens
    beats = sum(plan.spec.tiles.beats(ksteps) for ksteps in layer.ksteps)
    return LayerCost(
        name=name, structure=layer.structure, rows=layer.rows, inner=layer.inner, tiles=len(layer.ksteps),
        ksteps=sum(layer.ksteps), cycles=cycles, array_cycles=array_cycles(layer, array.units, groups),
        dense_array_cycles=dense_array_cycles(layer, array, groups), useful_macs=macs,
        utilization=macs / (array.multipliers * cycles), weight_bytes=beats * plan.spec.bus_bits // 8,
        input_bytes=sum(t.bytes for t in program.inputs if t.name == name),
        output_bytes=sum(t.bytes for t in program.outputs if t.name == name))
