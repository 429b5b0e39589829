"""The static pool of attention-map patterns: chosen from real maps, among those that hardware takes."""

import numpy as np
import torch

from compressor import pool_search
from compressor.attention_maps import set_map_pruning
from compressor.intops.map_pruning import IntegerMapPruning, to_blocks
from compressor.patterns import candidate_patterns, sorted_by_mask
from compressor.pools import MAP_KEEPS, PoolError

SIZE, POWER = 8, 1
"""Patterns and power unless a recipe says otherwise."""

SAMPLE_BLOCKS = 6000
"""Blocks the choice looks at, an even share from every layer and batch."""


def prune_maps(model, batches, *, weight_pool=None, size=SIZE, power=POWER):
    """Choose a map pool on real sentences and prune the model's attention maps with it from now on.

    The pool is what greedy search finds to keep most of the softmax weights ** power.

    Parameters
    ----------
    model : PreTrainedModel
        Its maps are not pruned yet.
    batches : iterable of dict of tensors
        Model inputs with ``input_ids`` and, where sentences are padded, ``attention_mask``; 64 to 256
        sentences suffice.
    weight_pool : PatternPool, optional
        The pool of the weights: one decoder serves both, so maps keep patterns of it. Without
        pruned weights: any 8 of 16 with two in each row.
    size : int
        Most patterns.
    power : int
        1 or 2.

    Returns
    -------
    IntegerMapPruning, float
        The pruning, and the share of the relative softmax weights that it keeps in these sentences.

    Raises
    ------
    PoolError
        If the pool of the weights has no patterns that hardware can use for maps.
    """
    candidates = map_candidates(weight_pool)
    blocks = observe_maps(model, batches)
    pruning = IntegerMapPruning(patterns=choose_patterns(blocks, candidates, size, power), power=power)
    set_map_pruning(model, pruning)
    kept = (blocks * pruning.patterns[(blocks**power @ pruning.patterns.T).argmax(axis=1)]).sum()
    return pruning, float(kept / blocks.sum())


def map_candidates(weight_pool):
    """Patterns that the maps of a model with these weights may keep: uint8, shape (C, 16)."""
    if weight_pool is None:
        return candidate_patterns(8, "row")
    if not weight_pool.serves_maps:
        raise PoolError("attention maps use patterns of the weights' pool, which must be row-balanced and "
                        f"keep {' or '.join(map(str, MAP_KEEPS))} of 16; it has balance "
                        f"{weight_pool.balance!r} and keeps {weight_pool.keep}. Train with pool: "
                        "{balance: row} or {balance: bank}, or leave maps whole")
    return weight_pool.patterns


def choose_patterns(blocks, candidates, size, power=POWER):
    """At most ``size`` candidates that keep most of ``blocks ** power``, ascending by mask: uint8 (P, 16)."""
    if size >= len(candidates):
        return sorted_by_mask(np.array(candidates))
    return sorted_by_mask(pool_search.greedy((blocks**power).astype(np.float32), candidates, size, []))


@torch.no_grad()
def observe_maps(model, batches):
    """A sample of 4x4 blocks of the unpruned attention maps of all layers and heads.

    Weights are relative to the largest of their row, as the rule sees them; 0 where query or key is padding.

    Returns
    -------
    float64 array, shape (n, 16)
        About 6000 blocks that are not all zero.
    """
    batches = list(batches)
    was_training, implementation = model.training, model.config._attn_implementation
    model.eval()
    model.set_attn_implementation("eager")  # the one of transformers' own that gives the maps
    found = []
    try:
        for batch in batches:
            inputs = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
            mask = inputs.get("attention_mask")
            valid = torch.ones_like(inputs["input_ids"]) if mask is None else mask
            valid = valid[:, None, :, None].bool()
            layers = model(**inputs, output_attentions=True).attentions
            share = -(-SAMPLE_BLOCKS // (len(batches) * len(layers)))
            for maps in layers:
                relative = (maps / maps.amax(dim=-1, keepdim=True) * valid).double().cpu().numpy()
                blocks = to_blocks(relative).reshape(-1, 16)
                blocks = blocks[blocks.any(axis=1)]
                found.append(blocks[::max(1, len(blocks) // share)][:share])
    finally:
        model.set_attn_implementation(implementation)
        model.train(was_training)
    blocks = np.concatenate(found) if found else np.zeros((0, 16))
    if not len(blocks):
        raise ValueError("the choice of a map pool saw no tokens; give at least one sentence")
    return blocks
