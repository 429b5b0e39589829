"""From a model directory to a bundle and back to a model that needs nothing else."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compressor import synthetic_task
from compressor.architectures import ARCHITECTURES
from compressor.bundle import BundleError, check_bundle, load_bundle, save_bundle
from compressor.calibration import DEFAULT_METHODS, Methods, calibrate_linears
from compressor.cli import main
from compressor.golden_model import GoldenModel
from compressor.golden_vectors import linear_vectors
from compressor.model_dir import ModelDirError, describe, write_model_dir
from compressor.model_export import export_model
from compressor.pools import build_pool
from compressor.quantized_model import to_quantized_model
from compressor.recipes import Recipe
from compressor.reload import encode, encoder_of, to_model, to_tokenizer
from compressor.structures import Dense, Pattern
from compressor.targets import target_layers
from compressor.tasks import TASKS
from compressor.tiny_model import build_tiny_model, label_config
from tests.bundles import random_bundle


def make_roberta(vocabulary):
    return RobertaForSequenceClassification(RobertaConfig(
        vocab_size=vocabulary, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=25, pad_token_id=0, initializer_range=0.2,
        **label_config(TASK)))


def make_distilbert(vocabulary):
    return DistilBertForSequenceClassification(DistilBertConfig(
        vocab_size=vocabulary, dim=64, n_layers=2, n_heads=4, hidden_dim=256, max_position_embeddings=24,
        initializer_range=0.2, **label_config(TASK)))


OTHERS = {"roberta": make_roberta, "distilbert": make_distilbert}
TASK = TASKS["synthetic"]
ROWS = synthetic_task.generate(48, seed=1)
SENTENCES = [row["sentence"] for row in ROWS]


def make_model_dir(folder, structure, architecture="bert", map_pruning=None):
    """What `compress train` leaves, without the training."""
    model, tokenizer = build_tiny_model(TASK, ROWS, max_tokens=24)
    if architecture != "bert":
        model = OTHERS[architecture](len(tokenizer))
    targets = target_layers(model)
    with torch.no_grad():
        for target in targets.values():
            target.module.weight.copy_(structure.project(target.module.weight)[0])
            target.module.bias.copy_(torch.linspace(-0.3, 0.3, len(target.module.bias)))
    pruned = () if structure.name == "dense" else tuple(targets)
    info = describe(model, structure=structure, pruned=pruned, task=TASK, max_tokens=24,
                    map_pruning=map_pruning)
    write_model_dir(folder, model=model, tokenizer=tokenizer, info=info, recipe=Recipe.preset("demo"),
                    metrics={"eval_accuracy": 0.5})
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Model directory, its model and tokenizer, the bundle's file, and the bundle read from it."""
    folder = tmp_path_factory.mktemp("export")
    model, tokenizer = make_model_dir(folder / "model", Pattern(build_pool("reed_muller")))
    export_model(folder / "model", folder / "pruned.pt", task=TASK, rows=ROWS, validation=ROWS[:20],
           methods=DEFAULT_METHODS)
    return folder / "model", model, tokenizer, folder / "pruned.pt", load_bundle(folder / "pruned.pt")


def test_every_layer_is_the_quantized_layer(made):
    _, model, _, _, bundle = made
    assert list(bundle.layers) == list(target_layers(model))
    for name, layer in bundle.layers.items():
        linear = encoder_of(model).get_submodule(name)
        assert layer.structure == "pattern"
        assert layer.density(bundle.pool) == 0.5
        error = np.abs(layer.dequantized() - linear.weight.detach().numpy())
        assert (error <= layer.weight_scale[:, None] * 0.501).all()
        np.testing.assert_allclose(layer.dequantized_bias(), linear.bias.detach().numpy(), atol=1e-4)


def test_scales_are_the_calibrated_ones(made):
    _, model, tokenizer, _, bundle = made
    scales = calibrate_linears(model, encode(tokenizer, SENTENCES, 24))
    for name, layer in bundle.layers.items():
        assert layer.input_scale == pytest.approx(scales[name].input_scale)
        assert layer.output_scale == pytest.approx(scales[name].output_scale)
        ratio = layer.multiplier / 2.0**layer.shift
        real = layer.input_scale * layer.weight_scale.astype(float) / layer.output_scale
        np.testing.assert_allclose(ratio, real, rtol=2.0**-16)


def test_host_part_is_every_other_parameter(made):
    _, model, _, _, bundle = made
    layers = {f"bert.{name}.{kind}" for name in bundle.layers for kind in ("weight", "bias")}
    assert set(bundle.host["state_dict"]) == set(model.state_dict()) - layers
    for name, tensor in bundle.host["state_dict"].items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_description(made):
    _, _, _, _, bundle = made
    assert bundle.model["task"] == "synthetic"
    assert bundle.model["labels"] == ["negative", "positive"]
    assert bundle.model["max_tokens"] == 24
    assert bundle.recipe == Recipe.preset("demo").to_dict()
    assert bundle.metrics["training"] == {"eval_accuracy": 0.5}
    assert bundle.metrics["calibration"]["rows"] == 48
    compared = bundle.metrics["quantization"]
    assert compared["rows"] == 20
    assert 0 <= compared["float"]["accuracy"] <= 1
    assert compared["prediction_changes"] <= 4


def test_the_file_alone_rebuilds_model_and_tokenizer(made, tmp_path):
    _, model, tokenizer, file, _ = made
    shutil.copy(file, tmp_path / "pruned.pt")
    bundle = load_bundle(tmp_path / "pruned.pt")
    rebuilt = to_tokenizer(bundle)
    assert rebuilt(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    batch = next(encode(rebuilt, SENTENCES, bundle.model["max_tokens"], batch_size=16))
    assert batch["input_ids"].shape == (16, 24)
    with torch.no_grad():
        before, after = model(**batch).logits, to_model(bundle)(**batch).logits
    # Only the rounding of weights to 8 bits lies between them.
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 0.05 * before.abs().max()


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures_become_bundles_and_models_again(architecture, tmp_path):
    """Bundles name layers as BERT does; the golden model stays close to the float model."""
    torch.manual_seed(4)
    model, _ = make_model_dir(tmp_path / "model", Pattern(build_pool("reed_muller")), architecture)
    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS,
                          validation=ROWS[:20])
    assert bundle.model["architecture"] == architecture
    assert list(bundle.layers)[6] == "encoder.layer.1.attention.self.query"
    assert bundle.model["config"]["hidden_size"] == 64
    quantized = bundle.layers["encoder.layer.1.intermediate.dense"]
    own = dict(model.base_model.named_modules())[ARCHITECTURES[architecture].module_path(quantized.name)]
    assert own is list(target_layers(model).values())[10].module
    loaded = load_bundle(tmp_path / "pruned.pt")
    batch = next(encode(to_tokenizer(loaded), SENTENCES, 24, batch_size=48))
    assert set(batch) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        true = model(**batch).logits
        again = to_model(loaded)(**batch).logits
        fake = to_quantized_model(loaded)(**batch).logits
    golden = torch.tensor(GoldenModel.of(loaded).logits(batch))
    spread = true.std()
    assert (again - true).abs().max() < 0.1 * spread
    assert (fake - golden).abs().max() < 1e-5
    assert (golden - true).abs().mean() < 0.25 * spread


def test_linear_layers_of_a_distilbert_alone(tmp_path):
    make_model_dir(tmp_path / "model", Dense(), "distilbert")
    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS,
                          methods=DEFAULT_METHODS)
    batches = encode(to_tokenizer(bundle), SENTENCES[:4], 24)
    assert [name for name, _, _ in linear_vectors(bundle, batches)] == list(bundle.layers)


def test_a_config_of_another_architecture_is_refused(made):
    bundle = made[-1]
    changed = {**bundle.model, "config": {**bundle.model["config"], "model_type": "roberta"}}
    with pytest.raises(BundleError, match=r"model.config.model_type: is 'roberta'; 'bert' is required"):
        check_bundle(replace(bundle, model=changed))


def test_export_is_reproducible_and_knows_no_folder(made, tmp_path):
    folder, _, _, file, _ = made
    shutil.copytree(folder, tmp_path / "elsewhere")
    export_model(tmp_path / "elsewhere", tmp_path / "again.pt", task=TASK, rows=ROWS, validation=ROWS[:20],
           methods=DEFAULT_METHODS)
    assert (tmp_path / "again.pt").read_bytes() == file.read_bytes()
    assert str(folder.parent).encode() not in file.read_bytes()


def test_dense_model(tmp_path):
    make_model_dir(tmp_path / "model", Dense())
    bundle = export_model(tmp_path / "model", tmp_path / "dense.pt", task=TASK, rows=ROWS[:8],
                    methods=Methods(inputs="mse", outputs="mse"))
    assert {layer.structure for layer in bundle.layers.values()} == {"dense"}
    assert bundle.kept_weights == bundle.weights
    assert "quantization" not in bundle.metrics
    load_bundle(tmp_path / "dense.pt")


def test_layer_that_breaks_its_structure(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["bert.encoder.layer.1.intermediate.dense.weight"][4:8, 8:12] = 1.0
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelDirError) as caught:
        export_model(tmp_path / "model", tmp_path / "x.pt", task=TASK, rows=ROWS)
    assert str(caught.value) == (
        "encoder.layer.1.intermediate.dense: the block at rows 4-7, columns 8-11 fits none of the 32 "
        "patterns; each keeps 8 of 16 weights")
    assert not (tmp_path / "x.pt").exists()


def test_directory_without_tokenizer(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelDirError):
        export_model(tmp_path / "model", tmp_path / "x.pt", task=TASK, rows=ROWS)
    assert not (tmp_path / "x.pt").exists()


def test_task_with_other_labels(made, tmp_path):
    with pytest.raises(ModelDirError, match=r"the model has labels negative, positive, but task mnli has "):
        export_model(made[0], tmp_path / "x.pt", task=TASKS["mnli"], rows=ROWS)


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("classifier.bias"),
     "host.state_dict: classifier.bias is missing; BertForSequenceClassification needs it"),
    (lambda state: state.update({"classifier.bias": torch.zeros(3)}),
     "host.state_dict.classifier.bias: has shape [3]; [2] fits the config"),
    (lambda state: state.update({"extra": torch.zeros(3)}),
     "host.state_dict: extra is not a parameter of BertForSequenceClassification; remove it"),
])
def test_host_part_that_does_not_fit(change, message):
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    change(bundle.host["state_dict"])
    with pytest.raises(BundleError) as caught:
        to_model(bundle)
    assert str(caught.value) == message


def test_unknown_architecture():
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    bundle.model["config"]["architectures"] = ["GPT2Model"]
    with pytest.raises(BundleError, match=r"^model\.config\.architectures: is 'GPT2Model'; allowed are "):
        to_model(bundle)


@pytest.mark.parametrize("files", [{}, {"tokenizer.json": "{"}])
def test_tokenizer_files_that_make_none(files):
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    with pytest.raises(BundleError, match=r"^host\.tokenizer: "):
        to_tokenizer(replace(bundle, host={**bundle.host, "tokenizer": files}))


def test_a_config_that_transformers_refuses():
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    config = bundle.model["config"] | {"id2label": {0: "one"}, "problem_type": "single_label_classification"}
    for read in (to_model, to_tokenizer):
        with pytest.raises(BundleError, match=r"model\.config: transformers refuses it: .*num_labels"):
            read(replace(bundle, model={**bundle.model, "config": config}))


# --- commands --------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_commands(made, tmp_path):
    out = tmp_path / "new" / "pruned.pt"
    result = run("export", made[0], "-o", out, "--rows", 16, "--validation-rows", 10)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("calibrating on 16 rows of synthetic\n")
    assert "weights kept: 49,152 of 98,304 (50.0 %)" in result.output
    assert "accuracy, quantized: " in result.output
    assert run("verify", out).exit_code == 0
    described = json.loads(run("verify", out, "--json").stdout)
    assert described["ok"] is True
    assert described["structures"] == {"pattern": 12}
    assert described["kept_weights"] * 2 == described["weights"]
    assert described["accumulator_bits"] <= 32


def test_verify_refuses_in_one_line(tmp_path):
    path = tmp_path / "broken.pt"
    path.write_bytes(b"nothing")
    message = f"{path}: not a bundle, or cut short: not a whole zip archive; `compress export` writes bundles"
    result = run("verify", path)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")
    result = run("verify", path, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"ok": False, "error": message})


def test_verify_refuses_a_host_part_that_does_not_fit(tmp_path):
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    del bundle.host["state_dict"]["classifier.bias"]
    save_bundle(bundle, tmp_path / "pruned.pt")
    result = run("verify", tmp_path / "pruned.pt")
    assert result.exit_code == 1
    assert result.output == (f"Error: {tmp_path}/pruned.pt: host.state_dict: classifier.bias is missing; "
                             "BertForSequenceClassification needs it\n")


@pytest.mark.parametrize(("arguments", "message"), [
    (["--input-method", "max"], "--input-method and --output-method need --linear-only"),
    (["--linear-only", "--input-method", "median"], "unknown calibration 'median'; use max, "
                                                    "mse, or percentile:P with P in 50 to 100"),
    (["--task", "nosuch"], "unknown task 'nosuch'; use one of "),
])
def test_export_refuses(arguments, message, made, tmp_path):
    result = run("export", made[0], "-o", tmp_path / "x.pt", *arguments)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {message}")
    assert result.output.count("\n") == 1


def test_export_of_a_folder_that_is_no_model(tmp_path):
    result = run("export", tmp_path)
    assert (result.exit_code, result.output) == (1, f"Error: {tmp_path}: no compression.json; it is not, "
                                                    "or not yet, the output of compress train\n")
