"""The host's float part against transformers."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.encoder_quantization import ActivationScales
from compressor.host import BertHost

HIDDEN = 16
STEPS = ActivationScales(scale=0.02, exponents=np.arange(HIDDEN) % 3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=40, hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=12, layer_norm_eps=1e-3, num_labels=3)).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def host(model):
    return BertHost.from_state_dict(model.state_dict(), epsilon=1e-3, encoder_input=STEPS,
                                    encoder_output=STEPS)


def test_embeddings_are_within_half_a_step_of_transformers(model, host):
    ids = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(2))
    types = ids % 2
    for token_types in (None, types):
        with torch.no_grad():
            true = model.bert.embeddings(ids, token_type_ids=token_types).numpy()
        got = host.embed(ids.numpy(), None if token_types is None else token_types.numpy())
        assert got.dtype == np.int8
        expected = np.clip(true / STEPS.steps, -127, 127)
        assert np.abs(got - expected).max() < 0.5 + 1e-3


def test_logits_are_those_of_transformers(model, host):
    output = np.random.default_rng(seed=3).integers(-127, 128, (4, 5, HIDDEN))
    with torch.no_grad():
        true = model.classifier(model.bert.pooler(torch.tensor(output * STEPS.steps).float())).numpy()
    assert np.allclose(host.classify(output), true, atol=1e-4)


def test_encoder_layers_stay_out(host):
    assert not any(name.startswith("encoder") for name in host.parameters)


def test_refusals(model, host):
    with pytest.raises(ValueError, match="13 tokens, but the model has 12 positions"):
        host.embed(np.zeros((1, 13), np.int64))
    state = model.state_dict()
    for name, message in (("classifier.weight", "this model has no classifier"),
                          ("bert.embeddings.LayerNorm.bias", "embeddings.LayerNorm.bias is missing")):
        part = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=message):
            BertHost.from_state_dict(part, epsilon=1e-3, encoder_input=STEPS, encoder_output=STEPS).classify(
                np.zeros((1, 2, HIDDEN)))
