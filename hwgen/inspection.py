"""What a bundle holds, and what its patterns cost in hardware."""

from dataclasses import replace
from typing import Any

import numpy as np

from compressor.blocks import POSITIONS
from compressor.bundle import Bundle
from compressor.pools import build_pool
from hwgen.cost import array_cycles, dense_array_cycles
from hwgen.model_sizes import pool_assignment
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.resource_model import mux_luts, routing_luts

SUMMED = ("weights", "kept", "nonzeros", "blocks", "present_blocks", "cycles", "dense_cycles")
"""Facts of a layer that add up over layers."""


def inspect_bundle(bundle: Bundle, request: PlanRequest | None = None) -> dict[str, Any]:
    """Facts about a bundle as plain values.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    request : hwgen.plan_request.PlanRequest, optional
        Sizes for which cycles are counted; 4 rows of units and 8 lanes unless given.

    Returns
    -------
    dict
        ``model``, ``pool`` (:func:`pool_facts`), ``attention_maps`` (``Bundle.attention_maps``),
        ``sizes`` (R, T, n, tokens), ``layers`` (one dict each) and ``total``. ``cycles`` are array cycles:
        exact but for fill and drain.
    """
    plan = make_plan(bundle, request or PlanRequest())
    array, layers = plan.spec.array, layer_facts(bundle, plan)
    return {
        "model": model_facts(bundle),
        "pool": pool_facts(bundle.pool), "attention_maps": bundle.attention_maps,
        "sizes": {"rows": array.units, "lanes": array.lanes, "slots": array.assignment.slots,
                  "multipliers": array.multipliers, "tokens": plan.tokens},
        "layers": layers, "total": {key: sum(layer[key] for layer in layers) for key in SUMMED}}


def model_facts(bundle):
    """What model a bundle holds: plain values."""
    config = bundle.model["config"]
    return {"architecture": bundle.model["architecture"], "task": bundle.model["task"],
            "labels": bundle.model["labels"], "max_tokens": bundle.model["max_tokens"],
            "hidden_size": config["hidden_size"], "num_hidden_layers": config["num_hidden_layers"]}


def layer_facts(bundle, plan):
    """What each linear layer holds and what it costs: list of dict of plain values.

    ``pattern_luts`` are modelled LUTs a multiplier, multiplexers and routing, of an array that holds only the
    patterns that the layer uses; None unless its structure is ``pattern``.
    """
    groups, array, luts = plan.groups(plan.tokens), plan.spec.array, {}
    layers = []
    for layer in plan.layers:
        weights = bundle.layers[layer.name]
        used = tuple(np.unique(weights.pattern_ids[weights.pattern_ids >= 0]).tolist())
        if used and used not in luts:
            luts[used] = _pattern_luts(bundle.pool, used)
        layers.append({
            "name": layer.name, "role": layer.role, "structure": layer.structure,
            "shape": [layer.rows, layer.inner], "weights": weights.weight.size,
            "kept": layer.kept_weights, "nonzeros": int(np.count_nonzero(weights.weight)),
            "blocks": weights.block_mask.size, "present_blocks": int(weights.block_mask.sum()),
            "patterns_used": len(used), "pattern_luts": luts.get(used),
            "accumulator_bits": weights.linear.accumulator_bits,
            "cycles": array_cycles(layer, array.units, groups),
            "dense_cycles": dense_array_cycles(layer, array, groups)})
    return layers


def _pattern_luts(pool, used):
    assignment = pool_assignment(replace(pool, patterns=pool.patterns[list(used)]))
    return (mux_luts(assignment) + routing_luts(assignment)) / assignment.multipliers


def pool_facts(pool):
    """What a pattern pool costs: dict.

    ``mux_luts`` and ``routing_luts`` are modelled LUTs a multiplier for the byte multiplexers and for
    products that change rows; ``balanced_routing_luts`` (0) and ``balanced_mux_luts`` are those of
    a row-balanced pool of the same size, None if there is none.
    """
    assignment = pool_assignment(pool)
    multipliers = assignment.multipliers
    balanced = None
    if pool.keep % 4 == 0 and pool.keep in (4, 8, 16):
        builder = "reed_muller" if pool.keep == 8 else "greedy"
        size = pool.size if pool.keep < POSITIONS else 1
        balanced = pool_assignment(build_pool(builder, size=min(size, 256), keep=pool.keep))
    return {
        "patterns": pool.size, "keep": pool.keep, "balance": pool.balance,
        "row_balanced": pool.is_row_balanced, "routed": assignment.is_routed,
        "slots": assignment.slots, "control_bits": assignment.control_bits,
        "most_in_a_row": int(pool.patterns.reshape(-1, 4, 4).sum(axis=2).max()),
        "mux_luts": mux_luts(assignment) / multipliers,
        "routing_luts": routing_luts(assignment) / multipliers,
        "balanced_mux_luts": mux_luts(balanced) / multipliers if balanced else None,
        "balanced_routing_luts": routing_luts(balanced) / multipliers if balanced else None}


def inspect_lines(facts):
    """The facts as text, line by line."""
    model, pool, sizes, total = (facts[key] for key in ("model", "pool", "sizes", "total"))
    yield (f"{model['architecture']}, {model['num_hidden_layers']} layers, hidden size "
           f"{model['hidden_size']}, up to {model['max_tokens']} tokens; task {model['task']}, "
           f"labels {', '.join(model['labels'])}")
    yield (f"pool: {pool['patterns']} patterns, each keeps {pool['keep']} of 16, at most "
           f"{pool['most_in_a_row']} in a row; n = {pool['slots']}")
    if pool["routed"]:
        line = (f"not row-balanced: products change rows, {pool['mux_luts'] + pool['routing_luts']:.1f} LUT "
                f"per multiplier ({pool['mux_luts']:.1f} multiplexer, {pool['routing_luts']:.1f} routing)")
        if pool["balanced_mux_luts"] is not None:
            line += f"; a row-balanced pool of this size: {pool['balanced_mux_luts']:.1f}, without routing"
        yield line + " (modelled)"
    else:
        yield (f"row-balanced: {pool['mux_luts']:.1f} LUT of multiplexer per multiplier, no routing "
               "(modelled)")
    maps = facts["attention_maps"]
    if maps:
        yield (f"attention maps: pruned in {maps['layers']} layers with {maps['patterns']} patterns of the "
               f"pool, power {maps['power']}; a 4x4 block of the context product takes 1 K-step, not "
               f"{4 // sizes['slots']}")
    yield ""
    yield (f"{'layer':42s} {'structure':9s} {'shape':>11s} {'kept':>8s} {'nonzero':>8s} {'blocks':>8s} "
           f"{'patterns':>8s} {'LUT':>5s} {'cycles':>11s} {'dense':>11s}")
    for layer in facts["layers"]:
        rows, inner = layer["shape"]
        luts = "-" if layer["pattern_luts"] is None else f"{layer['pattern_luts']:.1f}"
        yield (f"{layer['name']:42s} {layer['structure']:9s} {f'{rows}x{inner}':>11s} {_shares(layer)} "
               f"{layer['patterns_used']:8d} {luts:>5s} {layer['cycles']:11,} {layer['dense_cycles']:11,}")
    yield (f"{'all':42s} {'':9s} {'':>11s} {_shares(total)} {'':8s} {'':5s} {total['cycles']:11,} "
           f"{total['dense_cycles']:11,}")
    yield ""
    yield (f"cycles: array cycles with R = {sizes['rows']}, T = {sizes['lanes']}, n = {sizes['slots']} "
           f"({sizes['multipliers']} MACs) on {sizes['tokens']} tokens; "
           f"{total['dense_cycles'] / total['cycles']:.2f} times fewer than dense")
    yield "LUT: multiplexers and routing per multiplier for the layer's patterns alone (modelled)"


def _shares(counts):
    shares = (counts["kept"] / counts["weights"], counts["nonzeros"] / counts["weights"],
              counts["present_blocks"] / counts["blocks"])
    return " ".join(f"{100 * share:6.1f} %" for share in shares)
