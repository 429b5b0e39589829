"""Modelled resources of an accelerator: good enough to choose sizes. `hwgen synth` measures."""

from dataclasses import dataclass

from hwgen.devices import BRAM36, EBR18, URAM288
from rtl_templates.array_spec import Accumulation
from rtl_templates.program_format import DESCRIPTOR_BYTES
from rtl_templates.slot_solver import ADDER_COST, MUX_COST
from rtl_templates.tile_format import CONSTANT_BITS

STREAM_FIFO_BEATS = 512
"""Depth of the weight stream's FIFO, in beats."""

CONSTANT_SLOTS = 4
"""Tiles whose row constants are held at once."""

LUTRAM_DEPTH = 64
"""Memories up to this depth are modelled as LUTs, deeper ones as block RAM."""


@dataclass(frozen=True, kw_only=True)
class LogicCosts:
    """What the parts of an accelerator cost in one family.

    Parameters
    ----------
    unit_luts, unit_ffs : dict of Accumulation to float
        LUTs and flip-flops a multiplier of a row-balanced block unit: multiplexer, product, sum.
    routed_ffs : float
        Flip-flops a multiplier on top of that, if the pool is not row-balanced.
    drain_luts, drain_ffs : float
        Holding registers and the multiplexer of their rows, a multiplier.
    decoder_luts : float
        Pattern decoder, a block unit.
    lane_luts, lane_ffs, lane_dsps : float
        Requantizer, a lane.
    fixed_luts, fixed_ffs : int
        Registers, sequencer and controllers.
    bit_luts, bit_ffs : float
        Buffers of the bus interfaces and of activation words, a bit of bus and of word.
    """

    unit_luts: dict
    unit_ffs: dict
    routed_ffs: float
    drain_luts: float = 4.4
    drain_ffs: float = 18.5
    decoder_luts: float = 18
    lane_luts: float = 190
    lane_ffs: float = 182
    lane_dsps: float = 2
    fixed_luts: int = 2300
    fixed_ffs: int = 3000
    bit_luts: float = 4
    bit_ffs: float = 5


TREE, DSP = Accumulation.TREE, Accumulation.DSP
LOGIC_COSTS = {
    # Yosys 0.70: units with 8 lanes, drain with 4 units and 8 lanes, 28-bit sums; the fixed part is what
    # remains of a whole accelerator of 72 multipliers.
    "xcup": LogicCosts(unit_luts={TREE: 30.8, DSP: 30.8}, unit_ffs={TREE: 48.8, DSP: 48.8}, routed_ffs=48),
    "xc7": LogicCosts(unit_luts={TREE: 22.3, DSP: 8.3}, unit_ffs={TREE: 14.3, DSP: 0.3}, routed_ffs=20),
    # Estimated: 4-input LUTs, and 18-bit multipliers without accumulators.
    "ecp5": LogicCosts(unit_luts={TREE: 45, DSP: 45}, unit_ffs={TREE: 49, DSP: 49}, routed_ffs=48,
                       drain_luts=9, decoder_luts=40, lane_luts=380, fixed_luts=4500, bit_luts=6),
}

RAM_OF_FAMILY = {"xcup": BRAM36, "xc7": BRAM36, "ecp5": EBR18}


def mux_luts(assignment):
    """LUTs of a unit's column multiplexers, for one lane, by the columns that each multiplier ever reads.

    >>> from rtl_templates.slot_assignment import SlotAssignment
    >>> mux_luts(SlotAssignment.balanced(np.tile([1, 0, 1, 0], (1, 4)), 2))
    48
    """
    columns = zip(*assignment.columns, strict=True)
    rows = zip(*assignment.rows, strict=True)
    return sum(MUX_COST[len({c for c, r in zip(*pair, strict=True) if r >= 0})]
               for pair in zip(columns, rows, strict=True))


def routing_luts(assignment):
    """LUTs, for one lane of a unit, of the terms that rows of an unbalanced pool add beyond their n."""
    return ADDER_COST * sum(len(ports) - assignment.slots for ports in assignment.ports)


def memories(spec):
    """The accelerator's memories: dict of name to (width in bits, depth)."""
    array, tiles = spec.array, spec.tiles
    bank = 1 << (spec.tile_ksteps - 1).bit_length()  # the second bank begins at a power of two
    return {
        "activations": (array.word_bits, spec.activation_words),
        "weights": (tiles.weight_bits, 2 * bank),
        "index": (tiles.record_bits, 2 * bank),
        "row constants": (CONSTANT_BITS, CONSTANT_SLOTS * array.rows),
        "stream FIFO": (spec.bus_bits, STREAM_FIFO_BEATS),
        "program": (8 * DESCRIPTOR_BYTES, spec.program_depth),
        "profile": (32, spec.program_depth),
    }


def modelled_resources(spec, family="xcup", urams=0):
    """Modelled resources.

    Parameters
    ----------
    spec : AcceleratorSpec
    family : str
        ``xcup``, ``xc7`` or ``ecp5``.
    urams : int
        UltraRAM blocks of the device; the activation buffer uses them if it fits.

    Returns
    -------
    dict of str to int
        ``luts``, ``ffs``, ``dsps``, ``rams`` (BRAM36, or EBR18 on ecp5), ``urams``, ``memory_bits``.
    """
    costs, kind, array = LOGIC_COSTS[family], RAM_OF_FAMILY[family], spec.array
    multipliers, bits = array.multipliers, spec.bus_bits + array.word_bits
    luts = ((costs.unit_luts[array.accumulation] + costs.drain_luts) * multipliers
            + routing_luts(array.assignment) * array.units * array.lanes
            + costs.decoder_luts * array.units + costs.lane_luts * array.lanes
            + costs.fixed_luts + costs.bit_luts * bits)
    ffs = ((costs.unit_ffs[array.accumulation] + costs.drain_ffs
            + costs.routed_ffs * array.assignment.is_routed) * multipliers
           + costs.lane_ffs * array.lanes + costs.fixed_ffs + costs.bit_ffs * bits)
    rams = used_urams = 0
    for name, (width, depth) in memories(spec).items():
        in_urams = URAM288.blocks(width, depth)
        if name == "activations" and in_urams <= urams:
            used_urams = in_urams
        elif depth <= LUTRAM_DEPTH:
            luts += width
        else:
            rams += kind.blocks(width, depth)
    return {"luts": round(luts), "ffs": round(ffs),
            "dsps": round(multipliers + costs.lane_dsps * array.lanes),
            "rams": rams, "urams": used_urams,
            "memory_bits": sum(width * depth for width, depth in memories(spec).values())}
