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
    lut_tree, lut_dsp : float
        LUTs a multiplier of a row-balanced array with its column mux and its share of the accumulator,
        which is an adder tree (``tree``) or inside the DSP (``dsp``).
    ff : float
        Flip-flops a multiplier.
    dsp : float
        DSPs a multiplier.
    lane_luts, lane_ffs, lane_dsps : float
        A lane of the requantizer and of the word gatherer.
    fixed_luts, fixed_ffs : int
        Bus interfaces, registers and controllers, with a 128-bit bus.
    """

    lut_tree: float
    lut_dsp: float
    ff: float
    dsp: float
    lane_luts: float
    lane_ffs: float
    lane_dsps: float
    fixed_luts: int
    fixed_ffs: int


LOGIC_COSTS = {
    # Array: Yosys 0.70 on one block unit with 8 lanes; the rest: estimates.
    "xcup": LogicCosts(lut_tree=30.5, lut_dsp=30.5, ff=50, dsp=1, lane_luts=160, lane_ffs=200,
                       lane_dsps=2, fixed_luts=5000, fixed_ffs=6000),
    "xc7": LogicCosts(lut_tree=22, lut_dsp=8, ff=18, dsp=1, lane_luts=160, lane_ffs=200,
                      lane_dsps=2, fixed_luts=5000, fixed_ffs=6000),
    "ecp5": LogicCosts(lut_tree=45, lut_dsp=45, ff=50, dsp=1, lane_luts=320, lane_ffs=200,
                       lane_dsps=2, fixed_luts=9000, fixed_ffs=6000),
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
    in_dsp = array.accumulation is Accumulation.DSP
    luts = ((costs.lut_dsp if in_dsp else costs.lut_tree) * array.multipliers
            + routing_luts(array.assignment) * array.units * array.lanes
            + costs.lane_luts * array.lanes + costs.fixed_luts + 4 * max(0, spec.bus_bits - 128))
    ffs = (costs.ff * array.multipliers + costs.lane_ffs * array.lanes + costs.fixed_ffs
           + 4 * max(0, spec.bus_bits - 128))
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
            "dsps": round(costs.dsp * array.multipliers + costs.lane_dsps * array.lanes),
            "rams": rams, "urams": used_urams,
            "memory_bits": sum(width * depth for width, depth in memories(spec).values())}
