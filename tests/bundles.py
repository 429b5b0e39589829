"""Random bundles for tests: random weights through the real quantization, and a complete host part."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.blocks import from_blocks, to_blocks
from compressor.bundle import Bundle, check_bundle
from compressor.encoder_quantization import calibrate_encoder, quantize_encoder, to_tensors
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.layer_weights import ROLES, layer_name
from compressor.pools import build_pool
from compressor.quantization import activation_scale, quantize_layer
from compressor.structures import NM, Dense, Pattern

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(59)))

MIXED = {"q": "pattern", "k": "dense", "v": "nm", "o": "pattern", "ffn1": "nm", "ffn2": "dense"}
"""Structures of ``structure="mixed"``."""


def random_bundle(hidden=64, layers=2, heads=4, ffn=256, structure="pattern", pool=None,
                  absent_blocks=0.0, seed=0, max_tokens=64):
    """A random, checked bundle.

    Parameters
    ----------
    hidden, layers, heads, ffn : int
        Sizes of the BERT.
    structure : str
        "pattern", "dense", "nm" (2:4) or "mixed" (all three, by role).
    pool : PatternPool
        32 row-balanced Reed-Muller patterns unless given.
    absent_blocks : float
        Share of blocks that are all zero, 0 to 1.
    seed : int
        Equal arguments give equal bundles.

    Returns
    -------
    Bundle
        Its outputs use the whole int8 range on :func:`random_activations`; under 1 % saturate.
    """
    rng = np.random.default_rng(seed)
    pool = pool or build_pool("reed_muller")
    structures = {"pattern": Pattern(pool), "dense": Dense(), "nm": NM()}
    sizes = {"q": (hidden, hidden), "k": (hidden, hidden), "v": (hidden, hidden),
             "o": (hidden, hidden), "ffn1": (ffn, hidden), "ffn2": (hidden, ffn)}
    quantized = {}
    for index in range(layers):
        input_scales = {role: float(rng.uniform(0.01, 0.05)) for role in ROLES}
        input_scales["k"] = input_scales["v"] = input_scales["q"]
        for role in ROLES:
            chosen = structures[MIXED[role] if structure == "mixed" else structure]
            weight = _random_weight(rng, sizes[role], chosen, absent_blocks)
            bias = rng.normal(0, 0.1, sizes[role][0])
            sample = random_activations(64, sizes[role][1], rng) * input_scales[role]
            largest = float(np.abs(sample @ weight.T + bias).max())
            layer = quantize_layer(layer_name(index, role), role, weight, bias, structure=chosen,
                                   input_scale=input_scales[role],
                                   output_scale=activation_scale(largest))
            quantized[layer.name] = layer
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"],
              "vocab_size": len(VOCABULARY), "hidden_size": hidden, "num_hidden_layers": layers,
              "num_attention_heads": heads, "intermediate_size": ffn, "hidden_act": "gelu",
              "max_position_embeddings": max_tokens, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
              "pad_token_id": 0, "id2label": {"0": "negative", "1": "positive"},
              "label2id": {"negative": 0, "positive": 1}}
    bundle = Bundle(
        model={"architecture": "bert", "config": config, "task": "random", "fields": ["sentence"],
               "labels": ["negative", "positive"], "metrics": ["accuracy"], "max_tokens": max_tokens},
        pool=pool, layers=quantized, recipe={"seed": seed},
        host={"state_dict": _random_host(rng, hidden, layers, max_tokens),
              "tokenizer": {"vocab.txt": "\n".join(VOCABULARY) + "\n",
                            "tokenizer_config.json": '{"tokenizer_class": "BertTokenizer"}'}})
    check_bundle(bundle)
    return bundle


def random_encoder_bundle(hidden=32, layers=2, heads=4, ffn=64, structure="pattern", pool=None,
                          map_pruning=False, outliers=True, absent_blocks=0.0, head_counts=None,
                          ffn_sizes=None, seed=0, max_tokens=16):
    """A random, checked bundle with operators: a random BERT, pruned and quantized as a whole.

    Parameters
    ----------
    head_counts, ffn_sizes : sequence of int, optional
        Heads that are left in each layer, of hidden / heads channels, and its feed-forward size: a model
        with heads and rows removed.
    map_pruning : bool
        Prune attention maps with the pool's first 8 patterns.
    outliers : bool
        Give the first layer a neuron that needs the second GELU table.

    The other parameters are those of :func:`random_bundle`.
    """
    pool = pool or build_pool("reed_muller")
    structures = {"pattern": Pattern(pool), "dense": Dense(), "nm": NM()}
    config = BertConfig(vocab_size=len(VOCABULARY), hidden_size=hidden, num_hidden_layers=layers,
                        num_attention_heads=heads, intermediate_size=ffn, max_position_embeddings=max_tokens,
                        initializer_range=0.6 / hidden**0.5, pad_token_id=0,
                        id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config).eval()
        _resize(model.bert, head_counts or [heads] * layers, ffn_sizes or [ffn] * layers)
        for parameter in model.bert.encoder.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    structure_of, rng = {}, np.random.default_rng(seed)
    for index in range(layers):
        for role in ROLES:
            name = layer_name(index, role)
            chosen = structures[MIXED[role] if structure == "mixed" else structure]
            linear = model.bert.get_submodule(name)
            blocks = to_blocks(linear.weight.data.numpy())
            blocks = blocks * (rng.random(len(blocks)) >= absent_blocks)[:, None]
            weight = torch.tensor(from_blocks(blocks, linear.weight.shape), dtype=torch.float32)
            linear.weight.data = chosen.project(weight)[0]
            structure_of[name] = chosen
    if outliers:
        model.bert.encoder.layer[0].intermediate.dense.bias.data[5] = 14
    pruning = IntegerMapPruning(patterns=pool.patterns[:8].astype(np.uint8)) if map_pruning else None
    vocabulary = {"model": {"config": {"vocab_size": len(VOCABULARY)}}}
    batches = list(random_batches(SimpleNamespace(**vocabulary), batches=2, sentences=4, tokens=max_tokens))
    quantized = quantize_encoder(model, calibrate_encoder(model, batches), structure_of=structure_of,
                                 map_pruning=pruning)
    plain = json.loads(config.to_json_string(use_diff=False))
    plain["architectures"] = ["BertForSequenceClassification"]
    layer_parameters = {f"bert.{name}.{kind}" for name in structure_of for kind in ("weight", "bias")}
    bundle = Bundle(
        model={"architecture": "bert", "config": plain, "task": "random", "fields": ["sentence"],
               "labels": ["negative", "positive"], "metrics": ["accuracy"], "max_tokens": max_tokens},
        pool=pool, layers=quantized.layers, operators=to_tensors(quantized.operators), recipe={"seed": seed},
        host={"state_dict": {name: tensor.detach().clone() for name, tensor in model.state_dict().items()
                             if name not in layer_parameters},
              "tokenizer": {"vocab.txt": "\n".join(VOCABULARY) + "\n",
                            "tokenizer_config.json": '{"tokenizer_class": "BertTokenizer"}'}})
    check_bundle(bundle)
    return bundle


def extreme_encoder_bundle(**arguments):
    """A random encoder bundle of three layers at least, whose values are extreme.

    Layer 0 clips most results of its linear layers; in layer 1 all scores of a row are equal; in layer 2
    both inputs of the second LayerNorm are 0, so that its variance is 0.
    """
    bundle = random_encoder_bundle(**arguments)
    layers, operators = dict(bundle.layers), dict(bundle.operators)
    for role in ROLES:
        layer = layers[layer_name(0, role)]
        layers[layer.name] = replace(layer, shift=np.maximum(layer.shift - 5, 1))
    for name in (layer_name(1, "q"), layer_name(2, "ffn2")):
        layers[name] = replace(layers[name], weight=np.zeros_like(layers[name].weight),
                               bias=np.zeros_like(layers[name].bias))
    norm = "encoder.layer.2.attention.output.LayerNorm"
    operators[norm] = operators[norm] | {name: torch.zeros_like(operators[norm][name])
                                         for name in ("gamma", "beta")}
    bundle = replace(bundle, layers=layers, operators=operators)
    check_bundle(bundle)
    return bundle


def bert_base_layer_bundle(structure="pattern", **arguments):
    """One random encoder layer of BERT-base's sizes: 768 channels, 3072 in the middle."""
    return random_bundle(hidden=768, layers=1, heads=12, ffn=3072, structure=structure,
                         max_tokens=128, **arguments)


def random_activations(tokens, channels, rng):
    """int8 activations like a LayerNorm's output, shape (tokens, channels): normal, deviation 32."""
    return np.clip(np.rint(rng.normal(0, 32, (tokens, channels))), -127, 127).astype(np.int8)


def random_batches(bundle, batches=1, sentences=2, tokens=8, seed=0):
    """Model inputs: dicts of int64 tensors (sentences, tokens); the second half of them is padded."""
    rng = np.random.default_rng(seed)
    mask = np.ones((sentences, tokens), np.int64)
    mask[sentences // 2:, tokens - tokens // 4:] = 0
    for _ in range(batches):
        ids = rng.integers(5, bundle.model["config"]["vocab_size"], (sentences, tokens)) * mask
        yield {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _resize(bert, head_counts, ffn_sizes):
    """Replace the linear layers of layers with other numbers of heads or neurons."""
    hidden, size = bert.config.hidden_size, bert.config.hidden_size // bert.config.num_attention_heads

    def linear(rows, inner):
        layer = torch.nn.Linear(inner, rows)
        torch.nn.init.normal_(layer.weight, std=bert.config.initializer_range)
        return layer

    for layer, heads, ffn in zip(bert.encoder.layer, head_counts, ffn_sizes, strict=True):
        attention = layer.attention.self
        if heads * size != attention.query.out_features:
            for name in ("query", "key", "value"):
                setattr(attention, name, linear(heads * size, hidden))
            layer.attention.output.dense = linear(hidden, heads * size)
        if ffn != layer.intermediate.dense.out_features:
            layer.intermediate.dense, layer.output.dense = linear(ffn, hidden), linear(hidden, ffn)


def _random_weight(rng, shape, structure, absent_blocks):
    # Rows of different size, as in trained models, so that multipliers and shifts differ.
    weight = rng.normal(0, 0.04, shape) * rng.uniform(0.3, 2.0, (shape[0], 1))
    blocks = to_blocks(weight) * (rng.random(weight.size // 16) >= absent_blocks)[:, None]
    projected, _ = structure.project(torch.tensor(from_blocks(blocks, shape)))
    return projected.numpy()


def _random_host(rng, hidden, layers, max_tokens):
    def normal(*shape):
        return torch.tensor(rng.normal(0, 0.05, shape), dtype=torch.float32)

    def norm(prefix):
        return {f"{prefix}.weight": 1 + normal(hidden), f"{prefix}.bias": normal(hidden)}

    state = {"bert.embeddings.word_embeddings.weight": normal(len(VOCABULARY), hidden),
             "bert.embeddings.position_embeddings.weight": normal(max_tokens, hidden),
             "bert.embeddings.token_type_embeddings.weight": normal(2, hidden),
             **norm("bert.embeddings.LayerNorm")}
    for index in range(layers):
        state |= norm(f"bert.encoder.layer.{index}.attention.output.LayerNorm")
        state |= norm(f"bert.encoder.layer.{index}.output.LayerNorm")
    return state | {"bert.pooler.dense.weight": normal(hidden, hidden),
                    "bert.pooler.dense.bias": normal(hidden),
                    "classifier.weight": normal(2, hidden), "classifier.bias": normal(2)}
