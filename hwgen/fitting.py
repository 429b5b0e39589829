"""Fits another bundle to an accelerator that exists: same Verilog, other program, weights and patterns."""

from dataclasses import replace

import numpy as np

from compressor.bundle import Bundle
from hwgen.cost import program_cycles
from hwgen.encoder_program import whole_program
from hwgen.plan import Plan, PlanError, configuration_hash
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from rtl_templates.array_spec import PoolStorage
from rtl_templates.slot_assignment import SIZE, SlotAssignment

MISFIT = "the bundle does not fit: "


def fit_plan(bundle: Bundle, built: Plan, tokens: int | None = None) -> Plan:
    """Plan a bundle for the hardware of another plan.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    built : hwgen.plan.Plan
        Of the accelerator that exists.
    tokens : int, optional
        Longest sequence; what the bundle and the accelerator both hold unless given.

    Returns
    -------
    Plan
        Its configuration hash is that of ``built``: it describes the same hardware.

    Raises
    ------
    PlanError
        If the bundle needs more than the hardware has; the line has both numbers.
    """
    spec, array = built.spec, built.spec.array
    tokens = min(built.tokens, bundle.model["max_tokens"]) if tokens is None else tokens
    if tokens > built.tokens:
        raise PlanError(_too_much("tokens", tokens, built.tokens))
    if built.attention and not bundle.operators:
        raise PlanError("this accelerator runs whole encoders; the bundle has linear layers alone: "
                        "export it with its operators")
    assignment = _assignment(bundle.pool, array)
    needed = make_plan(bundle, PlanRequest(
        rows=array.units, lanes=array.lanes, storage=array.storage, tokens=tokens, bus_bits=spec.bus_bits,
        accumulation=array.accumulation, linear_only=not built.attention))
    for what, need, has in _sizes(needed, spec):
        if need > has:
            raise PlanError(_too_much(what, need, has))
    _check_maps(needed, built, assignment)
    fitted = replace(spec, array=replace(array, assignment=assignment))
    assert configuration_hash(fitted) == built.configuration_hash
    plan = replace(needed, spec=fitted, device=built.device, modelled=built.modelled)
    whole_program(plan)  # raises if descriptors or words of the buffer are too many
    return replace(plan, predicted_cycles=program_cycles(plan))


def _too_much(what, need, has):
    return (f"{MISFIT}it needs {need:,} {what}; this accelerator has {has:,}; "
            "build an accelerator for it")


def _assignment(pool, array):
    """The pool's slot assignment on the ports of an array, with as many patterns as the array has."""
    built = array.assignment
    slots = next(n for n in (1, 2, 4) if SIZE * n >= pool.keep)
    if slots != built.slots:
        raise PlanError(f"{MISFIT}its patterns keep {pool.keep} of 16, which takes n = {slots} slots a row; "
                        f"this accelerator has n = {built.slots}")
    fixed = array.storage is PoolStorage.ROM or (array.storage is PoolStorage.STREAM and built.is_routed)
    if fixed:
        if not np.array_equal(built.masks[:built.patterns].reshape(-1, SIZE * SIZE), pool.patterns):
            raise PlanError(f"{MISFIT}its patterns are not those in this accelerator's logic; "
                            "an accelerator built with --pool ram loads them at run time")
        return built
    if pool.size > built.patterns:
        raise PlanError(_too_much("patterns", pool.size, built.patterns))
    masks = np.concatenate([pool.patterns, np.tile(pool.patterns[:1], (built.patterns - pool.size, 1))])
    if built.is_routed:
        return SlotAssignment.any_pattern(masks, slots)
    if not pool.is_row_balanced or pool.keep != SIZE * slots:
        raise PlanError(f"{MISFIT}rows of its patterns keep different numbers, which takes routing; this "
                        "accelerator was built for a row-balanced pool and has none")
    return SlotAssignment.balanced(masks, slots)


def _sizes(needed, spec):
    """What a bundle needs and what the hardware has: (what, needed, there)."""
    need = needed.spec
    yield "bits in the accumulators", need.array.accumulator_bits, spec.array.accumulator_bits
    if need.encoder is not None:
        encoder, has = need.encoder, spec.encoder
        yield "hidden channels", SIZE * encoder.columns, SIZE * has.columns
        yield "channels in a head", SIZE * encoder.key_columns, SIZE * has.key_columns
        yield "patterns of attention maps", len(encoder.map_entries), len(has.map_entries)
    yield "activation columns", max(layer.columns for layer in needed.layers), 1 << spec.column_bits
    yield "K-steps in a tile", need.tile_ksteps, spec.tile_ksteps


def _check_maps(needed, built, assignment):
    """Patterns of attention maps are in the logic, also where the pool is in RAM."""
    if built.spec.encoder is None or not built.spec.encoder.map_entries:
        return
    has, need = built.spec.encoder, needed.spec.encoder
    entries = list(has.map_entries)
    if not np.array_equal(assignment.masks[entries], built.spec.array.assignment.masks[entries]) or (
            need.map_entries and (need.map_entries, need.map_power) != (has.map_entries, has.map_power)):
        raise PlanError(f"{MISFIT}patterns {entries[0]} to {entries[-1]} of the pool are fixed in this "
                        "accelerator's logic for attention maps, and the bundle has others")
