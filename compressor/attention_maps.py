"""Attention-map pattern pruning in torch: the rule of the golden model, on float scores, in any BERT.

The attention function is registered in both of transformers' registries. In one alone, the mask of
padded keys would silently arrive as None.
"""

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import bidirectional_mask_function

from compressor.architectures import ARCHITECTURES
from compressor.intops.map_pruning import BLOCK, IntegerMapPruning

IMPLEMENTATION = "pruned_maps"
"""Name of the attention function, as in ``model.set_attn_implementation``."""

UNPRUNED = "sdpa"
"""transformers' own default, for a model that is pruned no longer."""


def set_map_pruning(model, pruning):
    """Prune the attention maps of a model from now on, or stop.

    Kept weights of a query sum to one; gradients flow through them alone. The setting is neither a
    parameter nor saved by ``save_pretrained``: :func:`compressor.model_dir.load_model_dir` and
    :func:`compressor.reload.to_model` set it again. ``output_attentions`` gives the pruned maps.

    Parameters
    ----------
    model : PreTrainedModel
        A BERT, RoBERTa or DistilBERT, with or without a head.
    pruning : IntegerMapPruning, or one for each encoder layer, or None
        None, for a layer or for all: unpruned.
    """
    modules = self_attentions(model)
    if pruning is None or isinstance(pruning, IntegerMapPruning):
        pruning = [pruning] * len(modules)
    for module, one in zip(modules, pruning, strict=True):
        device = next(module.parameters()).device
        patterns = None if one is None else torch.tensor(one.patterns, device=device)
        module.register_buffer("map_patterns", patterns, persistent=False)
        module.map_pruning = one
    if any(one is not None for one in pruning):
        model.set_attn_implementation(IMPLEMENTATION)
    elif model.config._attn_implementation == IMPLEMENTATION:
        model.set_attn_implementation(UNPRUNED)


def map_pruning_of(model):
    """IntegerMapPruning of each encoder layer of a model, None where unpruned: tuple."""
    return tuple(getattr(module, "map_pruning", None) for module in self_attentions(model))


def self_attentions(model):
    """The self-attention modules of a BERT, RoBERTa or DistilBERT, in execution order: list."""
    names = ARCHITECTURES.get(model.config.model_type)
    if names is None:
        raise ValueError(f"attention maps cannot be pruned in a {model.config.model_type}; "
                         f"use {', '.join(ARCHITECTURES)}")
    path = names.linears["q"].rpartition(".")[0]
    return [layer.get_submodule(path) for layer in model.base_model.get_submodule(names.layers)]


def select_patterns(weights, patterns, power=1):
    """Pattern ids by the rule of :meth:`IntegerMapPruning.select`: most kept, ties to the lowest id.

    Parameters
    ----------
    weights : float tensor, shape (..., queries, keys)
        Softmax weights relative to the largest of their row, of any scale; 0 where masked. Sums are
        exact, and so is the choice, where weights are integers up to 127.
    patterns : uint8 tensor, shape (P, 16)
    power : int
        1 or 2.

    Returns
    -------
    int64 tensor, shape (..., ceil(queries / 4), ceil(keys / 4))
    """
    queries, keys = weights.shape[-2:]
    padded = functional.pad(weights.float() ** power, (0, -keys % BLOCK, 0, -queries % BLOCK))
    blocks = padded.unflatten(-2, (-1, BLOCK)).unflatten(-1, (-1, BLOCK)).transpose(-3, -2).flatten(-2)
    with torch.autocast(weights.device.type, enabled=False):  # bfloat16 would turn near choices into ties
        return (blocks @ patterns.float().T).argmax(dim=-1)  # the first of equal sums, as in NumPy


def kept_entries(ids, patterns, queries, keys):
    """Entries of maps kept by the patterns of their blocks: bool tensor, shape (..., queries, keys)."""
    blocks = patterns.bool()[ids].unflatten(-1, (BLOCK, BLOCK)).transpose(-3, -2)
    return blocks.flatten(-4, -3).flatten(-2)[..., :queries, :keys]


def prune_scores(scores, valid_keys, patterns, power=1):
    """Which scores remain, by the rule of :meth:`compressor.intops.attention.IntegerAttention.weights`.

    Blocks begin at query 0 and key 0. Sequences of fewer than 4 tokens are not pruned.

    Parameters
    ----------
    scores : float tensor, shape (batch, heads, tokens, tokens)
    valid_keys : bool tensor, shape (batch, 1, 1, tokens)
        False at padding; padded queries keep nothing.
    patterns : uint8 tensor, shape (P, 16), or None
        None keeps every valid score.
    power : int

    Returns
    -------
    bool tensor, shape of ``scores``
    """
    valid = valid_keys & valid_keys.transpose(2, 3)
    if patterns is None:
        return valid.expand_as(scores)
    with torch.no_grad():
        relative = masked_softmax(scores, valid)
        relative = relative / relative.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)
        ids = select_patterns(relative, patterns, power)
    long_enough = valid_keys.sum(dim=-1, keepdim=True) >= BLOCK
    return valid & (kept_entries(ids, patterns, *scores.shape[-2:]) | ~long_enough)


def masked_softmax(scores, kept):
    """Softmax over the kept scores of each row; zeros in a row that keeps none."""
    return scores.masked_fill(~kept, torch.finfo(scores.dtype).min).softmax(dim=-1) * kept


def pruned_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
    """transformers' attention interface: context and maps of one layer.

    Parameters
    ----------
    module : nn.Module
        Its ``map_pruning`` and ``map_patterns`` are :func:`set_map_pruning`'s.
    query, key, value : tensors, shape (batch, heads, tokens, D)
    attention_mask : bool tensor, shape (batch, 1, 1, tokens)
        From :func:`key_mask`.
    scaling : float
        ``D**-0.5`` unless given.
    dropout : float
        Of the kept weights, in training.

    Returns
    -------
    context : tensor, shape (batch, tokens, heads, D)
    maps : tensor, shape (batch, heads, tokens, tokens)

    Raises
    ------
    RuntimeError
        If the mask is not key_mask's: padding would be attended.
    """
    tokens = key.shape[2]
    if attention_mask is None or attention_mask.dtype != torch.bool \
            or attention_mask.shape[1:] != (1, 1, tokens):
        found = "none" if attention_mask is None else f"{attention_mask.dtype} {list(attention_mask.shape)}"
        raise RuntimeError(
            f"pruned attention needs the mask of valid keys, bool [batch, 1, 1, {tokens}], not {found}; "
            f"register {IMPLEMENTATION!r} in AttentionInterface and in AttentionMaskInterface, and give "
            "models a mask of shape (batch, tokens)")
    scores = (query @ key.transpose(2, 3)).float() * (query.shape[-1]**-0.5 if scaling is None else scaling)
    pruning = getattr(module, "map_pruning", None)
    kept = prune_scores(scores, attention_mask, getattr(module, "map_patterns", None),
                        1 if pruning is None else pruning.power)
    maps = masked_softmax(scores, kept).to(value.dtype)
    context = functional.dropout(maps, dropout, module.training) @ value
    return context.transpose(1, 2).contiguous(), maps


def key_mask(batch_size, kv_length, attention_mask=None, mask_function=bidirectional_mask_function,
             device="cpu", **_):
    """transformers' mask interface: valid keys, bool, shape (batch, 1, 1, keys); never None."""
    if mask_function is not bidirectional_mask_function:
        raise RuntimeError("attention maps are pruned in encoders, where every query sees every valid key; "
                           "this model has another mask")
    if attention_mask is None:
        return torch.ones(batch_size, 1, 1, kv_length, dtype=torch.bool, device=device)
    return attention_mask[:, None, None, :].bool()


AttentionInterface.register(IMPLEMENTATION, pruned_attention)
AttentionMaskInterface.register(IMPLEMENTATION, key_mask)
