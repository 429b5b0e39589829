"""Modelled resources of an accelerator: good enough to choose sizes. `hwgen synth` measures."""

from dataclasses import dataclass

from compressor.intops.softmax import TABLE_ENTRIES
from hwgen.devices import BRAM36, EBR18, URAM288
from rtl_templates.array_spec import AcceleratorSpec, Accumulation, PoolStorage
from rtl_templates.encoder_units import EncoderUnitSpecs
from rtl_templates.exp_table import WEIGHT_BITS
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
    array_luts, array_ffs : dict of Accumulation to float
        LUTs and flip-flops a multiplier of a row-balanced array: multiplexer, product, sum, the registers
        that hold results, their drain. ``PAIRED`` is there only for a family with the DSP48E2.
    routed_ffs : float
        Flip-flops a multiplier on top of that, if the pool is not row-balanced.
    decoder_luts : float
        Pattern decoder, a block unit.
    lane_luts, lane_ffs, lane_dsps : float
        Requantizer, a lane.
    fixed_luts, fixed_ffs : int
        Registers, sequencer and controllers.
    bit_luts, bit_ffs : float
        Bus interfaces and loaders, a bit of bus, activation word, weight word and index record.
    """

    array_luts: dict
    array_ffs: dict
    routed_ffs: float
    decoder_luts: float = 18
    lane_luts: float = 195
    lane_ffs: float = 190
    lane_dsps: float = 2
    fixed_luts: int = 2500
    fixed_ffs: int = 3700
    bit_luts: float = 3
    bit_ffs: float = 3.5


TREE, DSP, PAIRED = Accumulation
LOGIC_COSTS = {
    # Yosys 0.70, benchmarks/array_resources.py: 4 units, 8 lanes, 28-bit sums; the fixed part and the bits
    # are what remains of two whole accelerators, of 128 and of 2,048 multipliers.
    "xcup": LogicCosts(array_luts={TREE: 34.9, DSP: 45.7, PAIRED: 16.4},
                       array_ffs={TREE: 84.4, DSP: 93.0, PAIRED: 24.9}, routed_ffs=48),
    "xc7": LogicCosts(array_luts={TREE: 34.9, DSP: 17.7}, array_ffs={TREE: 42.4, DSP: 39.0}, routed_ffs=20,
                      lane_luts=167, lane_ffs=64),
    # Estimated: 4-input LUTs, and 18-bit multipliers without accumulators.
    "ecp5": LogicCosts(array_luts={TREE: 54, DSP: 54}, array_ffs={TREE: 84, DSP: 84}, routed_ffs=48,
                       decoder_luts=40, lane_luts=380, fixed_luts=4500, bit_luts=6),
}

@dataclass(frozen=True, kw_only=True)
class UnitCosts:
    """LUTs, flip-flops and DSPs of one of the encoder's units, as a function of lanes T and bus bits.

    Each is ``fixed + lane * T + square * T**2 + bit * bus_bits``.
    """

    lut_terms: tuple[float, float, float, float]
    ff_terms: tuple[float, float, float, float]
    dsp_lane: float = 0
    dsp_fixed: float = 0

    def luts(self, lanes, bus_bits):
        """LUTs."""
        return _polynomial(self.lut_terms, lanes, bus_bits)

    def ffs(self, lanes, bus_bits):
        """Flip-flops."""
        return _polynomial(self.ff_terms, lanes, bus_bits)

    def dsps(self, lanes):
        """DSPs."""
        return self.dsp_fixed + self.dsp_lane * lanes


def _polynomial(terms, lanes, bus_bits):
    fixed, lane, square, bit = terms
    return fixed + lane * lanes + square * lanes**2 + bit * bus_bits


ENCODER_COSTS = {
    # Yosys 0.70, family xcup: docs/encoder_resources.md. LayerNorm with 2 channels per cycle.
    "keys": UnitCosts(lut_terms=(160, 0, 0, 5.4), ff_terms=(0, 0, 0, 9.3)),
    "softmax": UnitCosts(lut_terms=(0, 450, 0, 0), ff_terms=(0, 438, 0, 0)),
    "pruned softmax": UnitCosts(lut_terms=(400, 743, 0, 0), ff_terms=(275, 750, 0, 0)),
    "transposer": UnitCosts(lut_terms=(206, 34, 8, 0), ff_terms=(235, 64, 8, 0)),
    "norm": UnitCosts(lut_terms=(945, 970, 0, 0), ff_terms=(1403, 1473, 0, 0), dsp_lane=6, dsp_fixed=5),
    "gelu": UnitCosts(lut_terms=(2, 8, 0, 0), ff_terms=(5, 32, 0, 0)),
}

FAMILY_SHARES = {"xcup": (1.0, 1.0), "xc7": (0.88, 0.66), "ecp5": (1.45, 1.0)}
"""LUTs and flip-flops of the encoder's units as shares of :data:`ENCODER_COSTS`. On xc7 Yosys packs
registers and sums into the DSPs; fitted to whole accelerators, of 8 lanes on xc7, of 4 on ecp5."""

RAM_OF_FAMILY = {"xcup": BRAM36, "xc7": BRAM36, "ecp5": EBR18}


def mux_luts(assignment):
    """LUTs of a unit's column multiplexers, for one lane, by the columns that each multiplier ever reads.

    >>> from rtl_templates.slot_assignment import SlotAssignment
    >>> mux_luts(SlotAssignment.balanced(np.tile([[1, 0, 1, 0], [1, 0, 0, 1]], (1, 4)), 2))
    48
    """
    columns = zip(*assignment.columns, strict=True)
    rows = zip(*assignment.rows, strict=True)
    return sum(MUX_COST[len({c for c, r in zip(*pair, strict=True) if r >= 0})]
               for pair in zip(columns, rows, strict=True))


def routing_luts(assignment):
    """LUTs, for one lane of a unit, of the terms that rows of an unbalanced pool add beyond their n."""
    return ADDER_COST * sum(len(ports) - assignment.slots for ports in assignment.ports)


def _saved_mux_luts(array):
    """LUTs, for one lane of a unit, that its multiplexers are smaller than those of all four columns."""
    if array.storage is not PoolStorage.ROM or array.assignment.is_routed:
        return 0
    return MUX_COST[-1] * array.assignment.multipliers - mux_luts(array.assignment)


def memories(spec):
    """The accelerator's memories: dict of name to (width in bits, depth, number of such memories)."""
    array, tiles = spec.array, spec.tiles
    bank = 1 << (spec.tile_ksteps - 1).bit_length()  # the second bank begins at a power of two
    found = {
        "activations": (array.word_bits, spec.activation_words, 1),
        "weights": (tiles.weight_bits, 2 * bank, 1),
        "index": (tiles.record_bits, 2 * bank, 1),
        "row constants": (CONSTANT_BITS, CONSTANT_SLOTS * array.rows, 1),
        "stream FIFO": (spec.bus_bits, STREAM_FIFO_BEATS, 1),
        "program": (8 * DESCRIPTOR_BYTES, spec.program_depth, 1),
        "profile": (32, spec.program_depth, 1),
    }
    return found | _encoder_memories(spec) if spec.encoder else found


def _encoder_memories(spec):
    """The side bank, tables (two banks each), what map pruning keeps, and LayerNorm between its passes."""
    lanes, encoder = spec.array.lanes, spec.encoder
    norm, softmax = EncoderUnitSpecs(spec).norm, EncoderUnitSpecs(spec).softmax
    channels, beats = norm.channels, norm.beats(encoder.columns)
    pruned = {"kept distances": (spec.tiles.weight_bits, softmax.kept_rows, 1),
              "map index": (spec.bus_bits, softmax.index_rows, 1)} if encoder.map_entries else {}
    return pruned | {
        "side bank": (spec.array.word_bits, encoder.side_words, 1),
        "exp tables": (WEIGHT_BITS, 2 * TABLE_ENTRIES, spec.bus_bits // 8 * (2 if pruned else 1)),
        "GELU tables": (8, 4 * TABLE_ENTRIES, lanes),
        "LayerNorm buffer": (16 * channels * lanes, norm.buffer_beats, 1),
        "LayerNorm scales": (47, 2 << (beats - 1).bit_length(), channels),
    }


def encoder_costs(spec):
    """Modelled (LUTs, flip-flops, DSPs) of the units of an encoder, on family xcup."""
    softmax = "pruned softmax" if spec.encoder.map_entries else "softmax"
    units = [ENCODER_COSTS[name] for name in ("keys", softmax, "transposer", "norm", "gelu")]
    lanes, bits = spec.array.lanes, spec.bus_bits
    return (sum(unit.luts(lanes, bits) for unit in units), sum(unit.ffs(lanes, bits) for unit in units),
            sum(unit.dsps(lanes) for unit in units))


def modelled_resources(spec: AcceleratorSpec, family: str = "xcup", urams: int = 0) -> dict[str, int]:
    """Modelled resources.

    Parameters
    ----------
    spec : AcceleratorSpec
    family : str
        ``xcup``, ``xc7`` or ``ecp5``.
    urams : int
        UltraRAM blocks of the device; the banks of the activation buffer use them if they fit.

    Returns
    -------
    dict of str to int
        ``luts``, ``ffs``, ``dsps``, ``rams`` (BRAM36, or EBR18 on ecp5), ``urams``, ``memory_bits``.

    Raises
    ------
    ValueError
        If lanes are paired and the family has no DSP48E2.
    """
    costs, kind, array = LOGIC_COSTS[family], RAM_OF_FAMILY[family], spec.array
    if array.accumulation not in costs.array_luts:
        raise ValueError(f"family {family} has no DSP48E2 for paired lanes; use another accumulation")
    multipliers, tiles = array.multipliers, spec.tiles
    bits = spec.bus_bits + array.word_bits + tiles.weight_bits + tiles.record_bits
    luts = (costs.array_luts[array.accumulation] * multipliers
            + (routing_luts(array.assignment) - _saved_mux_luts(array)) * array.units * array.lanes
            + costs.decoder_luts * array.units + costs.lane_luts * array.lanes
            + costs.fixed_luts + costs.bit_luts * bits)
    ffs = ((costs.array_ffs[array.accumulation] + costs.routed_ffs * array.assignment.is_routed) * multipliers
           + costs.lane_ffs * array.lanes + costs.fixed_ffs + costs.bit_ffs * bits)
    dsps = multipliers // (2 if array.accumulation is PAIRED else 1) + costs.lane_dsps * array.lanes
    if spec.encoder:
        more_luts, more_ffs, more_dsps = encoder_costs(spec)
        lut_share, ff_share = FAMILY_SHARES[family]
        luts += lut_share * more_luts
        ffs, dsps = ffs + ff_share * more_ffs, dsps + more_dsps
    rams = used_urams = 0
    for name, (width, depth, count) in memories(spec).items():
        in_urams = URAM288.blocks(width, depth)
        if name in ("activations", "side bank") and used_urams + in_urams <= urams:
            used_urams += in_urams
        elif depth <= LUTRAM_DEPTH:
            luts += width * count
        else:
            rams += kind.blocks(width, depth, count)
    return {"luts": round(luts), "ffs": round(ffs), "dsps": round(dsps), "rams": rams, "urams": used_urams,
            "memory_bits": sum(width * depth * count for width, depth, count in memories(spec).values())}
