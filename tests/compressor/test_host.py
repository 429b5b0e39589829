"""The host's float part against transformers."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compressor.encoder_scales import ActivationScales
from compressor.host import BertHost

HIDDEN = 16
STEPS = ActivationScales(scale=0.02, exponents=np.arange(HIDDEN) % 3)


SIZES = {"vocab_size": 40, "max_position_embeddings": 12, "num_labels": 3}
BERT_SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
              "layer_norm_eps": 1e-3}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, **BERT_SIZES)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, **BERT_SIZES)),
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(
        dim=HIDDEN, n_layers=1, n_heads=2, hidden_dim=8, **SIZES)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    torch.manual_seed(1)
    model = MODELS[request.param]().eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def host(model):
    return make_host(model, model.state_dict())


def make_host(model, state):
    return BertHost.from_state_dict(state, config=model.config.to_dict(), encoder_input=STEPS,
                                    encoder_output=STEPS)


def test_embeddings_are_within_half_a_step_of_transformers(model, host):
    ids = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(2))
    ids[1, 5:] = model.config.pad_token_id
    for token_types in (None, ids % 2) if host.architecture.token_types else (None,):
        types = {} if token_types is None else {"token_type_ids": token_types}
        with torch.no_grad():
            true = model.base_model.embeddings(ids, **types).numpy()
        got = host.embed(ids.numpy(), None if token_types is None else token_types.numpy())
        assert got.dtype == np.int8
        expected = np.clip(true / STEPS.steps, -127, 127)
        assert np.abs(got - expected).max() < 0.5 + 1e-3


def test_logits_are_those_of_transformers(model, host):
    output = np.random.default_rng(seed=3).integers(-127, 128, (4, 5, HIDDEN))
    hidden = torch.tensor(output * STEPS.steps).float()
    with torch.no_grad():
        true = {"bert": lambda: model.classifier(model.bert.pooler(hidden)),
                "roberta": lambda: model.classifier(hidden),
                "distilbert": lambda: model.classifier(torch.relu(model.pre_classifier(hidden[:, 0])))}[
                    model.config.model_type]().numpy()
    assert np.allclose(host.classify(output), true, atol=1e-4)


def test_encoder_layers_stay_out(host):
    assert not any(name.startswith(("encoder", "transformer")) for name in host.parameters)


def test_refusals(model, host):
    with pytest.raises(ValueError, match="13 tokens, but the model has 12 positions"):
        host.embed(np.full((1, 13), 5))
    prefix = model.base_model_prefix
    for name, message in ((f"{host.architecture.classifier}.weight", "this model has no classifier"),
                          (f"{prefix}.embeddings.LayerNorm.bias", "embeddings.LayerNorm.bias is missing")):
        part = {key: value for key, value in model.state_dict().items() if key != name}
        assert len(part) < len(model.state_dict())
        with pytest.raises(ValueError, match=message):
            make_host(model, part).classify(np.zeros((1, 2, HIDDEN)))
