"""Pruned attention in torch: the golden model's rule, padding that stays masked, the choice of the pool."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AttentionMaskInterface,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compressor.attention_maps import (
    IMPLEMENTATION,
    kept_entries,
    map_pruning_of,
    masked_softmax,
    prune_scores,
    select_patterns,
    self_attentions,
    set_map_pruning,
)
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.map_pool import choose_patterns, map_candidates, observe_maps, prune_maps
from compressor.pools import PoolError, build_pool
from tests.compressor.test_intops_attention import POOL, attention

PRUNING = IntegerMapPruning(patterns=POOL)
WHOLE = IntegerMapPruning(patterns=np.ones((1, 16), np.uint8))


def make_model(kind="bert", **changes):
    """A random classifier whose attention matters."""
    torch.manual_seed(3)
    if kind == "distilbert":
        model = DistilBertForSequenceClassification(DistilBertConfig(
            vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64, initializer_range=0.3))
    else:
        config, model = {"bert": (BertConfig, BertForSequenceClassification),
                         "roberta": (RobertaConfig, RobertaForSequenceClassification),
                         "decoder": (BertConfig, BertLMHeadModel)}[kind]
        model = model(config(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                             intermediate_size=64, initializer_range=0.3, **changes))
    return model.eval()


def inputs(lengths, tokens, seed=0):
    """A batch of sentences of these lengths; what lies behind them is not the padding token."""
    rng = np.random.default_rng(seed)
    ids = torch.tensor(rng.integers(5, 50, (len(lengths), 24))[:, :tokens])
    mask = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


@torch.no_grad()
def maps_of(model, batch):
    return model(**batch, output_attentions=True).attentions


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("lengths", [[9, 9, 9], [9, 5, 2]])
def test_a_pool_that_keeps_all_changes_nothing(kind, lengths):
    model, batch = make_model(kind), inputs(lengths, 9)
    with torch.no_grad():
        whole = model(**batch).logits
        set_map_pruning(model, WHOLE)
        torch.testing.assert_close(model(**batch).logits, whole)
        set_map_pruning(model, PRUNING)
        pruned = model(**batch).logits
        assert ((pruned - whole).abs().amax(dim=1) > 1e-3).tolist()[:2] == [True, True]
        set_map_pruning(model, None)
        torch.testing.assert_close(model(**batch).logits, whole)
    assert map_pruning_of(model) == (None, None)


def test_without_a_mask_every_key_is_valid():
    model, batch = make_model(), inputs([9], 9)
    set_map_pruning(model, PRUNING)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=batch["input_ids"]).logits, model(**batch).logits)


def test_padding_has_no_weight_and_the_rest_sums_to_one():
    model, lengths = make_model(), [11, 7, 4, 3, 1]
    set_map_pruning(model, PRUNING)
    for layer in maps_of(model, inputs(lengths, 11)):
        for maps, length in zip(layer, lengths, strict=True):
            assert (maps[:, :, length:] == 0).all()
            assert (maps[:, length:] == 0).all()
            torch.testing.assert_close(maps[:, :length].sum(dim=-1), torch.ones(4, length))
            assert ((maps[:, :length, :length] == 0).any() == (length > 3)).item()


def test_the_padded_length_changes_no_valid_entry():
    model = make_model()
    set_map_pruning(model, PRUNING)
    found = {tokens: maps_of(model, inputs([7, 5], tokens)) for tokens in (7, 8, 13)}
    for tokens in (8, 13):
        for narrow, wide in zip(found[7], found[tokens], strict=True):
            torch.testing.assert_close(wide[..., :7, :7], narrow)


def test_what_lies_in_the_padding_does_not_matter():
    model, batch = make_model(), inputs([6, 9], 9)
    set_map_pruning(model, PRUNING)
    other = dict(batch, input_ids=batch["input_ids"].clone())
    other["input_ids"][0, 6:] = 7
    with torch.no_grad():
        assert not torch.equal(batch["input_ids"], other["input_ids"])
        torch.testing.assert_close(model(**batch).logits, model(**other).logits)


def test_registered_in_one_registry_only_it_refuses_to_run(monkeypatch):
    """transformers would pass no mask at all, and padded keys would be attended."""
    model, batch = make_model(), inputs([6, 9], 9)
    set_map_pruning(model, PRUNING)
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, IMPLEMENTATION)
    with pytest.raises(RuntimeError, match="in AttentionInterface and in AttentionMaskInterface"):
        model(**batch)


def test_masks_that_hardware_does_not_know_are_refused():
    decoder, batch = make_model("decoder", is_decoder=True), inputs([6, 9], 9)
    set_map_pruning(decoder, PRUNING)
    with pytest.raises(RuntimeError, match="every query sees every valid key"):
        decoder(**batch)
    model = make_model()
    set_map_pruning(model, PRUNING)
    with pytest.raises(RuntimeError, match=r"bool \[batch, 1, 1, 9\], not torch.float32 \[2, 1, 9, 9\]"):
        model(batch["input_ids"], attention_mask=torch.zeros(2, 1, 9, 9))
    with pytest.raises(RuntimeError, match=r"not torch.bool \[2, 1, 9, 9\]"):
        model(batch["input_ids"], attention_mask=torch.ones(2, 1, 9, 9, dtype=torch.bool))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.sampled_from([1, 2]), st.integers(1, 127),
       st.integers(0, 999))
def test_selection_is_the_golden_models(queries, keys, power, largest, seed):
    """On integers both are exact; few different values make many ties."""
    weights = np.random.default_rng(seed).integers(0, largest + 1, (2, 3, queries, keys))
    golden = IntegerMapPruning(patterns=POOL, power=power)
    ids = select_patterns(torch.tensor(weights), torch.tensor(POOL), power)
    np.testing.assert_array_equal(ids.numpy(), golden.select(weights))
    kept = kept_entries(ids, torch.tensor(POOL), queries, keys)
    np.testing.assert_array_equal(kept.numpy(), golden.mask(ids.numpy(), queries, keys))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("lengths", [[12, 9, 5], [4, 3, 0], [11, 1, 6]])
def test_pruned_maps_are_the_golden_models(lengths, power):
    """Scores so far apart that every weight is 0 or 127 of 127: then both are exact, ties included."""
    rng = np.random.default_rng(sum(lengths))
    scores = rng.choice([-127, 0, 127], (3, 2, 12, 12), p=[0.5, 0.3, 0.2])
    unit = attention(pruning=IntegerMapPruning(patterns=POOL, power=power), score_scale=1.0)
    weights, sums, _ = unit.weights(scores, lengths)
    valid = torch.arange(12) < torch.tensor(lengths)[:, None]
    # Twice as far apart, so that exp underflows in float as it does in the table.
    floats = 2.0 * torch.tensor(scores)
    kept = prune_scores(floats, valid[:, None, None, :], torch.tensor(POOL), power)
    np.testing.assert_array_equal(masked_softmax(floats, kept).numpy(),
                                  (weights / np.maximum(sums, 1)[..., None]).astype(np.float32))
    assert not np.array_equal(weights, unit.softmax.compute(
        scores, (valid[:, None, :, None] & valid[:, None, None, :]).numpy())[0]) or max(lengths) <= 4


def test_gradients_flow_through_kept_entries_alone():
    torch.manual_seed(1)
    scores = torch.randn(1, 2, 8, 8, requires_grad=True)
    valid = torch.ones(1, 1, 1, 8, dtype=torch.bool)
    kept = prune_scores(scores, valid, torch.tensor(POOL))
    assert kept.sum(dim=-1).unique().tolist() == [4]
    values = torch.randn(8)
    masked_softmax(scores, kept).mul(values).sum().backward()
    assert (scores.grad[~kept] == 0).all()
    weights = masked_softmax(scores, kept).detach()
    mean = (weights * values).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(scores.grad, weights * (values - mean))


def test_a_step_of_training_changes_queries_and_keys():
    model = make_model().train()
    set_map_pruning(model, PRUNING)
    model(**inputs([9, 6], 9), labels=torch.tensor([0, 1])).loss.backward()
    for module in self_attentions(model):
        assert (module.query.weight.grad != 0).any()
        assert (module.key.weight.grad != 0).any()
        assert torch.isfinite(module.query.weight.grad).all()


def test_the_setting_is_not_saved_and_survives_a_change_of_type(tmp_path):
    model, batch = make_model(), inputs([9, 6], 9)
    before = set(model.state_dict())
    set_map_pruning(model, PRUNING)
    assert set(model.state_dict()) == before
    model.save_pretrained(tmp_path)
    again = BertForSequenceClassification.from_pretrained(tmp_path)
    assert map_pruning_of(again) == (None, None)
    with torch.no_grad():
        wide, narrow = model(**batch).logits, model.to(torch.bfloat16)(**batch).logits
    assert narrow.dtype == torch.bfloat16
    assert torch.isfinite(narrow).all()
    assert (wide - narrow).abs().max() < 0.2 * wide.abs().max()


# --- the pool --------------------------------------------------------------------------------------


def test_the_pool_is_chosen_among_the_patterns_of_the_weights():
    model, pool = make_model(), build_pool("reed_muller")
    pruning, kept = prune_maps(model, [inputs([24, 17], 24)], weight_pool=pool, size=6)
    masks = {pattern.tobytes() for pattern in pool.patterns}
    assert len(pruning.patterns) == 6
    assert {pattern.tobytes() for pattern in pruning.patterns} < masks
    assert map_pruning_of(model) == (pruning, pruning)
    assert 0.5 < kept < 1
    worst = IntegerMapPruning(patterns=pool.patterns[:6])
    set_map_pruning(model, None)
    blocks = observe_maps(model, [inputs([24, 17], 24)])
    best = (blocks @ pruning.patterns.T).max(axis=1).sum()
    assert best > (blocks @ worst.patterns.T).max(axis=1).sum()
    assert kept == pytest.approx(best / blocks.sum())


def test_a_pool_never_has_more_patterns_than_there_are():
    model, pool = make_model(), build_pool("reed_muller", size=8)
    pruning, _ = prune_maps(model, [inputs([9], 9)], weight_pool=pool, size=16)
    np.testing.assert_array_equal(pruning.patterns, pool.patterns)


def test_without_pruned_weights_any_row_balanced_pattern_will_do():
    assert len(map_candidates(None)) == 1296
    blocks = np.zeros((5, 16))
    blocks[:, [0, 3, 5, 6, 8, 9, 14, 15]] = 1.0  # rows 1001, 0110, 1100, 0011
    best = choose_patterns(blocks, map_candidates(None), 1)
    assert best.tolist() == [[1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1]]


def test_power_2_prefers_large_weights():
    block = np.zeros((1, 16))
    block[0, :4] = 1.0, 0.1, 0.6, 0.7  # pairs: 1.0 + 0.1 or 0.6 + 0.7; squares 1.01 or 0.85
    block[0, 4:] = 0.5
    candidates = np.array([[1, 1, 0, 0] * 4, [0, 0, 1, 1] * 4], np.uint8)
    assert choose_patterns(block, candidates, 1, power=1).tolist() == candidates[1:].tolist()
    assert choose_patterns(block, candidates, 1, power=2).tolist() == candidates[:1].tolist()


def test_observed_blocks_leave_out_padding():
    model = make_model()
    blocks = observe_maps(model, [inputs([5, 5], 12)])
    # Two sentences, two layers, four heads, and 2 x 2 blocks of which 5 queries and 5 keys are not padding.
    assert len(blocks) == 2 * 2 * 4 * 4
    edge = blocks.reshape(-1, 2, 2, 4, 4)
    assert (edge[:, 0, 1, :, 1:] == 0).all()
    assert (edge[:, 1, :, 1:] == 0).all()
    assert (edge.max(axis=(2, 4))[:, 0] == 1).all()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("pool", [build_pool("greedy", size=4, balance="none"),
                                  build_pool("greedy", size=4, keep=12)])
def test_pools_that_hardware_cannot_use_for_maps_are_refused(pool):
    with pytest.raises(PoolError, match="must be row-balanced and keep 4 or 8 or 16 of 16; it has balance"):
        map_candidates(pool)


def test_choosing_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="saw no tokens"):
        observe_maps(make_model(), [])
