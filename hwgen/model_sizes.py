"""What the planner knows about a bundle: sizes of an accelerator for it, whatever the device has room for."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from compressor.bundle import Bundle
from compressor.intops.encoder import layer_path
from compressor.intops.fixedpoint import ACTIVATION_MAX
from compressor.intops.linear import accumulator_bound, signed_bits
from compressor.intops.softmax import KEYS_MAX
from compressor.pools import PatternPool
from hwgen.cost import array_cycles, program_cycles
from hwgen.devices import Device
from hwgen.encoder_program import encoder_words
from hwgen.memory_image import NM_SLOTS, block_parts, tile_ksteps
from hwgen.plan import AttentionPlan, LayerPlan, Plan, PlanError, with_configuration
from hwgen.plan_request import PlanRequest
from hwgen.program import linear_buffer_words
from hwgen.resource_model import modelled_resources
from rtl_templates.array_spec import AcceleratorSpec, Accumulation, ArraySpec, EncoderSpec, PoolStorage
from rtl_templates.encoder_units import EncoderUnitSpecs
from rtl_templates.slot_assignment import SIZE, SlotAssignment
from rtl_templates.word_format import token_groups, word_bits

DEFAULT_BUS_BITS = 128
"""Width of the memory ports without a device, or half a word if that is more (512 at most)."""

BUS_BITS = (32, 64, 128, 256, 512, 1024)

CANDIDATE_LANES = (1, 2, 4, 8, 16, 32, 64)
"""Token lanes T that the planner considers; attention's sums must fit for any of them."""


def pool_assignment(pool: PatternPool, storage: PoolStorage = PoolStorage.ROM) -> SlotAssignment:
    """Slot assignment of a pattern pool, with the fewest slots n that take its patterns in one K-step.

    A pool in RAM that is not row-balanced gets ports for every pattern, so that it can be replaced.
    """
    slots = next(n for n in (1, 2, 4) if SIZE * n >= pool.keep)
    if pool.is_row_balanced and pool.keep == SIZE * slots:
        return SlotAssignment.balanced(pool.patterns, slots)
    if storage is PoolStorage.RAM:
        return SlotAssignment.any_pattern(pool.patterns, slots)
    return SlotAssignment.solve(pool.patterns, slots)


def attention_plans(bundle: Bundle) -> tuple[AttentionPlan, ...]:
    """Attention of every encoder layer of a bundle with operators: tuple of AttentionPlan."""
    plans = []
    for index, layer in enumerate(bundle.encoder.layers):
        attention, heads = layer.attention, layer.attention.heads
        plans.append(AttentionPlan(
            name=layer_path(index), heads=heads, key_size=layer.q.weight.shape[0] // heads,
            value_size=layer.v.weight.shape[0] // heads,
            score_multiplier=tuple(attention.score_multiplier.tolist()),
            score_shift=tuple(attention.score_shift.tolist()),
            context_numerator=attention.context_numerator, context_exponent=attention.context_exponent,
            map_pruning=attention.pruning is not None))
    return tuple(plans)


class ModelSizes:
    """A bundle as the planner sees it: what does not depend on R and T, worked out once."""

    def __init__(self, bundle: Bundle, request: PlanRequest, names: Sequence[str] | None) -> None:
        unknown = [name for name in names or () if name not in bundle.layers]
        if unknown:
            raise PlanError(f"the bundle has no layer {unknown[0]!r}; it has {', '.join(bundle.layers)}")
        self.bundle, self.request = bundle, request
        self.layers = [bundle.layers[name] for name in (names or bundle.layers)]
        self.structures = {layer.structure for layer in self.layers}
        self.storage = self._storage()
        self.assignment = pool_assignment(bundle.pool, self.storage)
        if "nm" in self.structures and self.assignment.slots != NM_SLOTS:
            raise PlanError(f"2:4 layers need n = {NM_SLOTS} slots a row; the pool keeps {bundle.pool.keep} "
                            f"of 16, which gives n = {self.assignment.slots}")
        self.tokens = bundle.model["max_tokens"] if request.tokens is None else request.tokens
        if not 1 <= self.tokens <= 65535:
            raise PlanError(f"--tokens must be 1 to 65535, not {self.tokens}")
        if request.bus_bits is not None and request.bus_bits not in BUS_BITS:
            raise PlanError(f"--bus-bits must be one of {', '.join(map(str, BUS_BITS))}, "
                            f"not {request.bus_bits}")
        self.attention: tuple[AttentionPlan, ...] = ()
        if bundle.operators and not names and not request.linear_only:
            self.attention = attention_plans(bundle)
            if self.tokens > KEYS_MAX:
                raise PlanError(f"attention takes up to {KEYS_MAX} tokens, not {self.tokens}; "
                                "use fewer --tokens")
        self.columns = max(layer.inner for layer in self.layers) // SIZE
        self.accumulator_bits = self._accumulator_bits()
        self.known_plans: dict[int, tuple[LayerPlan, ...]] = {}

    @cached_property
    def kept_weights(self) -> list[int]:
        """Weights that the structure of each layer keeps."""
        return [int(layer.kept(self.bundle.pool).sum()) for layer in self.layers]

    def layer_plans(self, units: int) -> tuple[LayerPlan, ...]:
        """Layer plans for R block units."""
        if units not in self.known_plans:
            self.known_plans[units] = tuple(
                LayerPlan(name=layer.name, role=layer.role, structure=layer.structure, rows=layer.rows,
                          inner=layer.inner, ksteps=tile_ksteps(layer, units, self.assignment.slots),
                          kept_weights=kept)
                for layer, kept in zip(self.layers, self.kept_weights, strict=True))
        return self.known_plans[units]

    def spec(self, units: int, lanes: int, tokens: int, device: Device | None, *,
             overlap: bool = True) -> AcceleratorSpec:
        """Sizes for R, T and S, with their configuration; PlanError if they contradict each other."""
        return with_configuration(self.sizes(units, lanes, tokens, device, overlap=overlap))

    def sizes(self, units: int, lanes: int, tokens: int, device: Device | None, *,
              overlap: bool = True) -> AcceleratorSpec:
        """Sizes for R, T and S; PlanError if they contradict each other."""
        try:
            array = ArraySpec(units=units, lanes=lanes, assignment=self.assignment,
                              storage=self.storage, accumulator_bits=self.accumulator_bits,
                              accumulation=self._accumulation(device, lanes))
            plans = self.layer_plans(units)
            sizes: dict[str, Any] = dict(
                array=array, bus_bits=self._bus_bits(units, lanes, device),
                activation_words=0 if self.attention else linear_buffer_words(
                    plans, token_groups(tokens, lanes), overlap=overlap),
                tile_ksteps=self._tile_ksteps(plans), column_bits=max(1, (self.columns - 1).bit_length()),
                program_depth=max(16, 1 << (3 * len(plans)).bit_length()))
            if self.attention:
                sizes |= self._encoder_sizes(sizes, tokens)
            return AcceleratorSpec(**sizes)
        except ValueError as error:
            raise PlanError(f"R = {units}, T = {lanes}: {error}") from error

    def plan(self, units: int, lanes: int, tokens: int, device: Device | None, *,
             overlap: bool = True) -> Plan:
        """The finished plan."""
        spec = self.spec(units, lanes, tokens, device, overlap=overlap)
        plan = Plan(device=device.name if device else None, spec=spec, layers=self.layer_plans(units),
                    tokens=tokens, modelled=device_resources(spec, device), predicted_cycles=0,
                    attention=self.attention)
        return replace(plan, predicted_cycles=program_cycles(plan))

    def least_cycles(self, units: int, lanes: int, tokens: int) -> int:
        """Cycles of the passes alone: a lower bound that is quick to find."""
        groups = token_groups(tokens, lanes)
        return sum(array_cycles(layer, units, groups) for layer in self.layer_plans(units))

    def _encoder_sizes(self, sizes: dict[str, Any], tokens: int) -> dict[str, Any]:
        """Sizes that the encoder's program and its on-chip tiles need."""
        array, plans = sizes["array"], self.layer_plans(sizes["array"].units)
        parts = block_parts("dense", array.assignment.slots)
        key_columns = max(attention.key_size for attention in self.attention) // SIZE
        columns = max(key_columns, token_groups(tokens, array.lanes) * array.lanes // SIZE)
        column_bits = max(sizes["column_bits"], (columns - 1).bit_length())
        main_words, side_words = encoder_words(plans, self.attention, tokens, array.lanes)
        descriptors = 2 + sum(9 + 6 * attention.heads for attention in self.attention)
        hidden = self.layers[0].inner
        encoder = EncoderSpec(side_words=side_words, columns=hidden // SIZE, key_columns=key_columns,
                              tokens=tokens, **self._map_entries())
        result = {"activation_words": main_words, "column_bits": column_bits, "encoder": encoder,
                  "tile_ksteps": max(sizes["tile_ksteps"], parts * columns),
                  "program_depth": 1 << (descriptors - 1).bit_length()}
        units = EncoderUnitSpecs(AcceleratorSpec(**{**sizes, **result}))
        for unit in ("keys", "softmax", "transposer", "norm", "gelu"):
            getattr(units, unit)  # its spec refuses sizes that it cannot serve
        return result

    def _map_entries(self) -> dict[str, Any]:
        prunings = [layer.attention.pruning for layer in self.bundle.encoder.layers
                    if layer.attention.pruning is not None]
        if not prunings:
            return {}
        first = prunings[0]
        for other in prunings[1:]:
            if other.power != first.power or not np.array_equal(other.patterns, first.patterns):
                raise PlanError("attention maps of all layers must have the same patterns and power")
        pool = [tuple(pattern) for pattern in self.bundle.pool.patterns.tolist()]
        missing = [pattern for pattern in first.patterns.tolist() if tuple(pattern) not in pool]
        if missing:
            raise PlanError(f"attention maps use a pattern that the pool lacks: {missing[0]}; "
                            "prune maps with patterns of the pool")
        entries = tuple(pool.index(tuple(pattern)) for pattern in first.patterns.tolist())
        return {"map_entries": entries, "map_power": first.power}

    def _tile_ksteps(self, plans: Sequence[LayerPlan]) -> int:
        if self.storage is PoolStorage.RAM:
            # One bitstream for every bundle of these shapes, so nothing may depend on the weights.
            return max(layer.columns * block_parts(layer.structure, self.assignment.slots) for layer in plans)
        return max(max(layer.ksteps) for layer in plans)

    def _storage(self) -> PoolStorage:
        asked = self.request.storage
        if "nm" not in self.structures:
            return asked or PoolStorage.ROM
        if asked not in (None, PoolStorage.STREAM):
            name = next(layer.name for layer in self.layers if layer.structure == "nm")
            raise PlanError(f"{name} is 2:4, whose column selects come with the weight stream; "
                            f"--pool {asked} cannot serve it, leave --pool out")
        return PoolStorage.STREAM

    def _accumulator_bits(self) -> int:
        if self.storage is PoolStorage.RAM:
            return 32
        bounds = [int(accumulator_bound(layer.weight, layer.bias).max()) for layer in self.layers]
        bounds += [max(attention.key_size, min(self.tokens + CANDIDATE_LANES[-1], KEYS_MAX))
                   * ACTIVATION_MAX**2 for attention in self.attention]
        return max(16, signed_bits(max(bounds)))

    def _accumulation(self, device: Device | None, lanes: int) -> Accumulation:
        if self.request.accumulation:
            if self.request.accumulation is Accumulation.PAIRED and device and device.family != "xcup":
                raise ValueError("--accumulation paired needs the DSP48E2 of UltraScale+, which "
                                 f"{device.name} does not have; leave --accumulation out")
            return self.request.accumulation
        family = device.family if device and not self.assignment.is_routed else None
        if family == "xcup" and lanes % 2 == 0:
            return Accumulation.PAIRED
        return Accumulation.DSP if family == "xc7" else Accumulation.TREE

    def _bus_bits(self, units: int, lanes: int, device: Device | None) -> int:
        if self.request.bus_bits is not None:
            return self.request.bus_bits
        widest = device.bus_bits if device else min(512, max(DEFAULT_BUS_BITS, word_bits(lanes) // 2))
        return min(widest, self.widest_bus(units, lanes))

    def widest_bus(self, units: int, lanes: int) -> int:
        """The largest power of two that divides an activation word and the weights of a K-step."""
        divisor = math.gcd(word_bits(lanes), 8 * self.assignment.multipliers * units)
        return divisor & -divisor


def device_resources(spec: AcceleratorSpec, device: Device | None) -> dict[str, int]:
    """Modelled resources on a device; without one, on UltraScale+ without UltraRAM."""
    return modelled_resources(spec, device.family, device.urams) if device else modelled_resources(spec)
