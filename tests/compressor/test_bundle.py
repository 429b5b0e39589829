"""Bundles: everything survives the file, and every bad file ends in one clear line."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.bundle import BundleError, check_bundle, load_bundle, save_bundle
from compressor.bundle_file import checksums
from compressor.pools import build_pool
from tests.bundles import bert_base_layer_bundle, random_bundle

Q = "encoder.layer.0.attention.self.query"
K = "encoder.layer.0.attention.self.key"
V = "encoder.layer.0.attention.self.value"
FFN1 = "encoder.layer.0.intermediate.dense"
FFN2 = "encoder.layer.0.output.dense"
REMEDY = "`compress export` writes bundles"
FIELDS = ("weight", "block_mask", "pattern_ids", "masks", "bias", "multiplier", "shift", "weight_scale",
          "input_scale", "output_scale")


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(hidden=16, layers=1, heads=2, ffn=32, structure="mixed", absent_blocks=0.2)


@pytest.fixture(scope="module")
def file_bytes(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "pruned.pt"
    save_bundle(bundle, path)
    return path.read_bytes()


@pytest.fixture
def raw(file_bytes):
    return torch.load(io.BytesIO(file_bytes), weights_only=True)


def refusal(path):
    """The one line with which load_bundle refuses a file, without the file's name."""
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def seal(raw):
    """Give a changed bundle checksums that fit, so that only the other checks can refuse it."""
    raw["checksums"] = checksums({key: value for key, value in raw.items() if key != "checksums"})


# --- what is written is what is read ---------------------------------------------------------------


@pytest.mark.parametrize("structure", ["pattern", "dense", "nm", "mixed"])
@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_round_trip(structure, absent, tmp_path):
    before = random_bundle(hidden=16, layers=2, heads=2, ffn=32, structure=structure,
                           absent_blocks=absent, seed=5)
    save_bundle(before, tmp_path / "pruned.pt")
    after = load_bundle(tmp_path / "pruned.pt")
    assert list(after.layers) == list(before.layers)
    assert after.pool == before.pool
    for name, layer in before.layers.items():
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(after.layers[name], field), getattr(layer, field))
            assert type(getattr(after.layers[name], field)) is type(getattr(layer, field))
    for section in ("model", "recipe", "metrics", "operators"):
        assert getattr(after, section) == getattr(before, section)
    assert after.host["tokenizer"] == before.host["tokenizer"]
    assert list(after.host["state_dict"]) == list(before.host["state_dict"])
    for name, tensor in before.host["state_dict"].items():
        assert torch.equal(after.host["state_dict"][name], tensor)
    # Every fourth block absent at least, and yet all of them come back.
    present = np.concatenate([layer.block_mask.ravel() for layer in after.layers.values()])
    assert abs((1 - present.mean()) - absent) < 0.1


def test_equal_bundles_give_equal_bytes(bundle, file_bytes, tmp_path):
    save_bundle(bundle, tmp_path / "another_name.pt")
    assert (tmp_path / "another_name.pt").read_bytes() == file_bytes


def test_file_is_plain_and_packed(raw):
    layer = raw["layers"][Q]
    present = int(np.unpackbits(layer["block_mask"].numpy()).sum())
    assert 0 < present < 16
    assert layer["weights"].dtype == torch.int8
    assert layer["weights"].shape == (8 * present,)
    assert layer["pattern_ids"].shape == (present,)
    assert raw["layers"][K]["weights"].numel() % 16 == 0
    assert raw["layers"][V]["masks"].shape[1] == 2
    assert [raw["format"], raw["schema_version"]] == ["hwgen-bundle", 1]


def test_failed_save_leaves_the_old_file_and_nothing_else(bundle, tmp_path):
    path = tmp_path / "pruned.pt"
    save_bundle(bundle, path)
    before = path.read_bytes()
    with pytest.raises(BundleError):
        save_bundle(replace(bundle, recipe={"path": Path("x")}), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["pruned.pt"]


def test_interrupted_save_leaves_nothing(bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_bundle(bundle, tmp_path / "pruned.pt")
    assert list(tmp_path.iterdir()) == []


def test_bert_base_layer_has_half_its_weights(tmp_path):
    bundle = bert_base_layer_bundle()
    assert bundle.weights == 4 * 768 * 768 + 2 * 768 * 3072
    assert bundle.kept_weights * 2 == bundle.weights
    save_bundle(bundle, tmp_path / "pruned.pt")
    # 8 int8 weights and one id byte a block; host part, row constants and the container are the rest.
    assert (tmp_path / "pruned.pt").stat().st_size < bundle.weights * 9 / 16 + 3.5e6


# --- files that are not bundles --------------------------------------------------------------------


class Exploit:
    """Writes a file when unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "no.pt") == "cannot be read: No such file or directory"


def test_folder(tmp_path):
    assert refusal(tmp_path).startswith("a folder, not a bundle; `compress export ")


@pytest.mark.parametrize("content", [b"", b"\x80\x04]", bytes(range(256)) * 40, b"PK\x03\x04" + b"x" * 99],
                         ids=["empty", "pickle", "random", "zip start"])
def test_foreign_bytes(content, tmp_path):
    path = tmp_path / "pruned.pt"
    path.write_bytes(content)
    assert refusal(path) == f"not a bundle, or cut short: not a whole zip archive; {REMEDY}"


def test_foreign_zip(tmp_path):
    path = tmp_path / "pruned.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")
    assert refusal(path) == f"not a bundle: a zip archive that torch.save did not write; {REMEDY}"


@pytest.mark.parametrize(("value", "found"), [
    ({"weight": torch.zeros(2)}, "a dict without it"),
    ([1, 2], "list"),
    (torch.zeros(2), "Tensor"),
    ({"format": "gguf"}, "format 'gguf'"),
])
def test_foreign_torch_file(value, found, tmp_path):
    path = tmp_path / "pruned.pt"
    torch.save(value, path)
    assert refusal(path) == f"not a bundle: format 'hwgen-bundle' is required, found {found}; {REMEDY}"


@pytest.mark.parametrize("legacy", [False, True])
def test_malicious_pickle_is_not_executed(legacy, raw, tmp_path):
    path, target = tmp_path / "pruned.pt", tmp_path / "executed"
    raw["recipe"] = {"x": Exploit(target)}
    torch.save(raw, path, _use_new_zipfile_serialization=not legacy)
    if legacy:
        assert refusal(path).startswith("not a bundle, or cut short")
    else:
        assert refusal(path) == (
            "not a bundle: it holds Python objects other than tensors and plain values; "
            f"refused, and nothing was executed; {REMEDY}")
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(share, file_bytes, tmp_path):
    path = tmp_path / "pruned.pt"
    path.write_bytes(file_bytes[:int(share * len(file_bytes))])
    assert refusal(path) == f"not a bundle, or cut short: not a whole zip archive; {REMEDY}"


def test_every_flipped_byte_is_refused_or_harmless(bundle, file_bytes, tmp_path):
    """200 positions, evenly spread: the content that loads is always the one that was saved."""
    path = tmp_path / "pruned.pt"
    reference = {name: layer.linear.weight.tobytes() for name, layer in bundle.layers.items()}
    refused = 0
    for position in np.linspace(0, len(file_bytes) - 1, 200).astype(int):
        damaged = bytearray(file_bytes)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            loaded = load_bundle(path)
        except BundleError:
            refused += 1
        else:  # padding and dates inside the archive
            assert {name: layer.weight.tobytes() for name, layer in loaded.layers.items()} == reference
    assert refused > 60


# --- bundles whose container is off ----------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_schema_version(version, raw, tmp_path):
    raw["schema_version"] = version
    torch.save(raw, tmp_path / "pruned.pt")
    assert refusal(tmp_path / "pruned.pt") == (
        f"schema version {version!r} is not supported, only 1; export the model again with this version")


@pytest.mark.parametrize("key", ["model", "pool", "layers", "operators", "host", "recipe", "metrics",
                                 "checksums"])
def test_missing_section(key, raw, tmp_path):
    del raw[key]
    torch.save(raw, tmp_path / "pruned.pt")
    assert refusal(tmp_path / "pruned.pt").startswith(f"bundle: key {key!r} is missing; required are ")


def test_unknown_section(raw, tmp_path):
    raw["notes"] = "x"
    torch.save(raw, tmp_path / "pruned.pt")
    assert refusal(tmp_path / "pruned.pt").startswith("bundle: unknown key 'notes'; allowed are ")


def _change_weight(raw):
    raw["layers"][Q]["weights"][3] += 1


def _change_host(raw):
    raw["host"]["state_dict"]["classifier.bias"][1] += 1


def _change_value(raw):
    raw["layers"][Q]["input_scale"] *= 2


def _change_order(raw):
    raw["layers"] = dict(reversed(raw["layers"].items()))


def _change_dtype(raw):
    raw["layers"][Q]["bias"] = raw["layers"][Q]["bias"].to(torch.int64)


def _change_shape(raw):
    raw["layers"][Q]["weights"] = raw["layers"][Q]["weights"].reshape(2, -1)


def _change_meaning_of_the_same_bytes(raw):
    raw["layers"][Q]["bias"] = raw["layers"][Q]["bias"].view(torch.uint32)


@pytest.mark.parametrize(("change", "place"), [
    (_change_shape, f"layers.{Q}.weights"), (_change_meaning_of_the_same_bytes, f"layers.{Q}.bias"),
    (_change_weight, f"layers.{Q}.weights"), (_change_host, "host.state_dict.classifier.bias"),
    (_change_value, "values"), (_change_order, "values"), (_change_dtype, f"layers.{Q}.bias"),
])
def test_checksum(change, place, raw, tmp_path):
    change(raw)
    torch.save(raw, tmp_path / "pruned.pt")
    assert refusal(tmp_path / "pruned.pt") == (
        f"{place}: differs from its checksum; the file was changed or damaged; export it again")


@pytest.mark.parametrize(("value", "message"), [
    ((1, 2), "recipe.x: is tuple; allowed are tensors, dict, list, str, int, float, bool and None"),
    ({1: 2}, "recipe.x: has the key 1; keys must be strings"),
    (float("nan"), "recipe.x: is nan; a finite number is required"),
    (torch.zeros(1).expand(10**9), "recipe.x: is not a plain contiguous tensor; "
                                   "make it contiguous before saving"),
    (torch.tensor([1.0, float("inf")]), "recipe.x: holds NaN or infinity; finite numbers are required"),
])
def test_values_that_are_not_plain(value, message, raw, tmp_path):
    raw["recipe"]["x"] = value
    torch.save(raw, tmp_path / "pruned.pt")
    assert refusal(tmp_path / "pruned.pt") == message


# --- bundles whose content is off, with checksums that fit -----------------------------------------


def edit(path, value):
    """A change: set the value at a path of keys."""
    def change(raw):
        target = raw
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    return change


def edit_tensor(path, index, value):
    """A change: set one entry of the tensor at a path of keys."""
    def change(raw):
        target = raw
        for key in path:
            target = target[key]
        target[index] = value
    return change


def delete(*path):
    """A change: delete the key at a path."""
    def change(raw):
        target = raw
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]
    return change


def layer(name, key, value):
    return edit(("layers", name, key), value)


def entry(name, key, index, value):
    return edit_tensor(("layers", name, key), index, value)


def overflow_rows(raw):
    raw["layers"][K]["bias"][2] = 2**31 - 1


def unbalance(raw):
    raw["pool"]["patterns"][4] = torch.tensor([1] * 8 + [0] * 8, dtype=torch.uint8)


def repeat_pattern(raw):
    raw["pool"]["patterns"][5] = raw["pool"]["patterns"][3]


LAYER_KEYS = ("role, shape, structure, block_mask, pattern_ids, masks, weights, bias, multiplier, shift, "
              "weight_scale, input_scale, output_scale")

CONTENT = {
    "model key": (delete("model", "task"), "model: key 'task' is missing; required are architecture, "
                                           "config, task, fields, labels, metrics, max_tokens"),
    "architecture": (edit(("model", "architecture"), "gpt2"),
                     "model.architecture: is 'gpt2'; allowed are bert, roberta, distilbert"),
    "config": (edit(("model", "config"), 3), "model.config: is int; a dict is required"),
    "hidden size": (edit(("model", "config", "hidden_size"), "16"),
                    "model.config.hidden_size: is '16'; an integer from 1 to 1048576 is required"),
    "labels": (edit(("model", "labels"), [1]), "model.labels: is [1]; a list of strings is required"),
    "unknown metric": (edit(("model", "metrics"), ["bleu"]), "model.metrics: is 'bleu'; allowed are "
                                                             "accuracy, f1, macro_f1, matthews_correlation"),
    "metric of numbers": (edit(("model", "metrics"), ["pearson"]), "model.metrics: is 'pearson'; allowed "
                                                                   "are accuracy, f1, macro_f1, "
                                                                   "matthews_correlation"),
    "no metric": (edit(("model", "metrics"), []),
                  "model.metrics: is []; a task with labels needs one or more"),
    "task": (edit(("model", "task"), None), "model.task: is None; a string is required"),
    "max_tokens": (edit(("model", "max_tokens"), 65),
                   "model.max_tokens: is 65; an integer from 1 to 64 is required"),
    "pool key": (edit(("pool", "names"), []),
                 "pool: unknown key 'names'; allowed are patterns, keep, balance"),
    "pool keep": (edit(("pool", "keep"), 7), "pool: pattern 0 keeps 8 of 16 positions; "
                                             "every pattern of this pool must keep 7"),
    "pool keep type": (edit(("pool", "keep"), True),
                       "pool.keep: is True; an integer from 1 to 16 is required"),
    "pool balance": (edit(("pool", "balance"), "column"),
                     "pool.balance: is 'column'; allowed are row, bank, none"),
    "pool unbalanced": (unbalance, 'pool: balance is "row", but pattern 4 keeps unequal numbers in its '
                                   'rows; use balance "none"'),
    "pool repeats": (repeat_pattern, "pool: two patterns of the pool are equal; list each pattern once"),
    "pool shape": (edit(("pool", "patterns"), torch.zeros(32, 9, dtype=torch.uint8)),
                   "pool.patterns: has shape [32, 9]; [32, 16] is required"),
    "pool dtype": (edit(("pool", "patterns"), torch.zeros(32, 16)),
                   "pool.patterns: has dtype float32; uint8 is required"),
    "pool values": (edit_tensor(("pool", "patterns"), (0, 0), 2),
                    "pool: patterns must consist of 0 and 1"),
    "pool list": (edit(("pool", "patterns"), []), "pool.patterns: is list; a tensor is required"),
    "layers": (edit(("layers",), []), "layers: is list; a dict is required"),
    "missing layer": (delete("layers", K), f"layers: entry 1 is {V}; 1 encoder layers in execution "
                                           f"order require {K}"),
    "extra layers": (edit(("model", "config", "num_hidden_layers"), 2),
                     "layers: entry 6 is nothing; 2 encoder layers in execution order require "
                     "encoder.layer.1.attention.self.query"),
    "layer key missing": (delete("layers", Q, "shift"),
                          f"{Q}: key 'shift' is missing; required are {LAYER_KEYS}"),
    "layer key unknown": (layer(Q, "zero_point", 0),
                          f"{Q}: unknown key 'zero_point'; allowed are {LAYER_KEYS}"),
    "role": (layer(Q, "role", "x"), f"{Q}: role: is 'x'; allowed are q, k, v, o, ffn1, ffn2"),
    "structure": (layer(Q, "structure", "free"),
                  f"{Q}: structure: is 'free'; allowed are pattern, dense, nm"),
    "shape type": (layer(Q, "shape", (16, 16)), None),
    "shape": (layer(Q, "shape", [16, 10]), f"{Q}: shape: is [16, 10]; multiples of 4 are required"),
    "shape huge": (layer(Q, "shape", [1 << 19, 1 << 19]),
                   f"{Q}: block_mask: has shape [2]; [{1 << 31}] is required"),
    "shape of config": (edit(("model", "config", "hidden_size"), 20),
                        f"{Q}: has shape [16, 16]; [16, 20] fits hidden size 20 and the layers beside it"),
    "weights short": (layer(K, "weights", torch.zeros(5, dtype=torch.int8)),
                      re.compile(rf"{K}: weights: has shape \[5\]; \[\d+\] is required")),
    "weights dtype": (layer(K, "weights", torch.zeros(5)),
                      f"{K}: weights: has dtype float32; int8 is required"),
    "weights list": (layer(K, "weights", [1]), f"{K}: weights: is list; a tensor is required"),
    "weight -128": (entry(FFN2, "weights", 0, -128),
                    re.compile(rf"{FFN2}: weight\[\d+, \d+\]: is -128; -127 to 127 is allowed")),
    "pattern id": (entry(Q, "pattern_ids", 0, 32), re.compile(
        rf"{Q}: pattern_ids: block \(0, \d\) has pattern id 32; the pool has patterns 0 to 31")),
    "pattern ids short": (layer(Q, "pattern_ids", torch.zeros(2, dtype=torch.uint8)),
                          re.compile(rf"{Q}: pattern_ids: has shape \[2\]; \[\d+\] is required")),
    "ids of dense": (layer(K, "pattern_ids", torch.zeros(1, dtype=torch.uint8)),
                     f"{K}: pattern_ids: has shape [1]; [0] is required"),
    "mask": (entry(V, "masks", (0, 0), 0x37), re.compile(
        rf"{V}: masks: block \(0, \d\) keeps \[3, 2, 2, 2\] positions in its rows; "
        "structure 'nm' keeps 2 of every 4")),
    "bias dtype": (layer(Q, "bias", torch.zeros(16, dtype=torch.int64)),
                   f"{Q}: bias: has dtype int64; int32 is required"),
    "bias shape": (layer(Q, "bias", torch.zeros(15, dtype=torch.int32)),
                   f"{Q}: bias: has shape [15]; [16] is required"),
    "accumulator": (overflow_rows, f"{K}: a sum can need 33 bits; 32 are allowed"),
    "multiplier high": (entry(Q, "multiplier", 1, 65536),
                        f"{Q}: multiplier[1]: is 65536; 0 to 65535 is allowed"),
    "multiplier low": (entry(Q, "multiplier", 1, -1), f"{Q}: multiplier[1]: is -1; 0 to 65535 is allowed"),
    "shift 0": (entry(Q, "shift", 15, 0), f"{Q}: shift[15]: is 0; 1 to 47 is allowed"),
    "shift 48": (entry(Q, "shift", 0, 48), f"{Q}: shift[0]: is 48; 1 to 47 is allowed"),
    "weight scale": (entry(Q, "weight_scale", 2, 0.0),
                     f"{Q}: weight_scale[2]: is 0.0; a finite positive float is required"),
    "weight scale NaN": (entry(Q, "weight_scale", 2, float("nan")), None),
    "input scale": (layer(Q, "input_scale", 1),
                    f"{Q}: input_scale: is 1; a finite positive float is required"),
    "input scale negative": (layer(FFN1, "input_scale", -0.5),
                             f"{FFN1}: input_scale: is -0.5; a finite positive float is required"),
    "output scale": (layer(Q, "output_scale", 0.0),
                     f"{Q}: output_scale: is 0.0; a finite positive float is required"),
    "shared input": (layer(V, "input_scale", 0.5), re.compile(
        rf"{V}: input_scale: is 0.5; q, k and v share one input, whose scale is 0\.\d+")),
    "host key": (delete("host", "tokenizer"),
                 "host: key 'tokenizer' is missing; required are state_dict, tokenizer"),
    "host dtype": (edit(("host", "state_dict", "classifier.bias"), torch.zeros(2, dtype=torch.float16)),
                   "host.state_dict.classifier.bias: is dtype torch.float16; a float32 tensor is required"),
    "host value": (edit(("host", "state_dict", "classifier.bias"), 1.0),
                   "host.state_dict.classifier.bias: is float; a float32 tensor is required"),
    "tokenizer path": (edit(("host", "tokenizer", "../x"), ""), "host.tokenizer: has the file name '../x'; "
                       "plain names of letters, digits, '.' and '_' are required"),
    "tokenizer text": (edit(("host", "tokenizer", "vocab.txt"), 1),
                       "host.tokenizer.vocab.txt: is int; text is required"),
    "metrics": (edit(("metrics",), [1]), "metrics: is list; a dict is required"),
}
REFUSED_AS_NOT_PLAIN = {
    "shape type": f"layers.{Q}.shape: is tuple; allowed are tensors, dict, list, str, int, float, bool "
                  "and None",
    "weight scale NaN": f"layers.{Q}.weight_scale: holds NaN or infinity; finite numbers are required",
}


@pytest.mark.parametrize("case", CONTENT)
def test_content(case, raw, tmp_path):
    change, message = CONTENT[case]
    change(raw)
    if message is None:
        message = REFUSED_AS_NOT_PLAIN[case]
    else:
        seal(raw)
    torch.save(raw, tmp_path / "pruned.pt")
    found = refusal(tmp_path / "pruned.pt")
    if isinstance(message, re.Pattern):
        assert message.fullmatch(found), found
    else:
        assert found == message


# --- bundles in memory -----------------------------------------------------------------------------


def changed(bundle, name, **fields):
    return replace(bundle, layers={**bundle.layers, name: replace(bundle.layers[name], **fields)})


def test_weight_outside_its_pattern(bundle):
    layer = bundle.layers[Q]
    row, column = np.argwhere(layer.block_mask)[0]
    pattern = layer.pattern_ids[row, column]
    position = int(np.argmin(bundle.pool.patterns[pattern]))
    weight = layer.weight.copy()
    weight[4 * row + position // 4, 4 * column + position % 4] = 9
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, Q, weight=weight))
    assert str(caught.value) == (f"{Q}: weight: block ({row}, {column}) has 9 at position {position}; "
                                 f"pattern {pattern} prunes that position")


def test_weight_in_an_absent_block(bundle):
    row, column = np.argwhere(~bundle.layers[Q].block_mask)[0]
    weight = bundle.layers[Q].weight.copy()
    weight[4 * row + 1, 4 * column] = -3
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, Q, weight=weight))
    assert str(caught.value) == (f"{Q}: weight: block ({row}, {column}) has -3 at position 4; "
                                 "the block is absent and must be all zero")


def test_weight_outside_its_mask(bundle):
    layer = bundle.layers[V]
    row, column = np.argwhere(layer.block_mask)[0]
    position = next(i for i in range(16) if not layer.masks[row, column] >> i & 1)
    weight = layer.weight.copy()
    weight[4 * row + position // 4, 4 * column + position % 4] = 1
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, V, weight=weight))
    assert str(caught.value) == (f"{V}: weight: block ({row}, {column}) has 1 at position {position}; "
                                 "its mask prunes that position")


def test_pattern_id_of_an_absent_block(bundle):
    row, column = np.argwhere(~bundle.layers[Q].block_mask)[0]
    ids = bundle.layers[Q].pattern_ids.copy()
    ids[row, column] = 7
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, Q, pattern_ids=ids))
    assert str(caught.value) == (f"{Q}: pattern_ids: block ({row}, {column}) has 7; "
                                 "-1 is required where a block is absent or of another structure")


def test_layer_under_another_name(bundle):
    layers = {(f"{name}s" if name == Q else name): layer for name, layer in bundle.layers.items()}
    with pytest.raises(BundleError) as caught:
        check_bundle(replace(bundle, layers=layers))
    assert str(caught.value) == f"{Q}s: holds the layer {Q}; names must agree"


def test_smaller_pool_refuses_ids_beyond_it(bundle):
    with pytest.raises(BundleError, match=r"pattern id \d+; the pool has patterns 0 to 3$"):
        check_bundle(replace(bundle, pool=build_pool("reed_muller", size=4)))


@pytest.mark.parametrize(("field", "value", "message"), [
    ("weight_scale", float("nan"), "weight_scale[0]: is nan; a finite positive float is required"),
    ("weight_scale", float("inf"), "weight_scale[0]: is inf; a finite positive float is required"),
    ("input_scale", float("nan"), "input_scale: is nan; a finite positive float is required"),
    ("output_scale", float("inf"), "output_scale: is inf; a finite positive float is required"),
])
def test_scales_that_are_not_finite(field, value, message, bundle):
    if field == "weight_scale":
        value = np.where(np.arange(16) == 0, np.float32(value), bundle.layers[Q].weight_scale)
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, Q, **{field: value}))
    assert str(caught.value) == f"{Q}: {message}"


@pytest.mark.parametrize(("field", "dtype"), [
    ("weight", np.int16), ("bias", np.int64), ("multiplier", np.int32), ("shift", np.int32),
    ("weight_scale", np.float64), ("pattern_ids", np.int64), ("masks", np.int32), ("block_mask", np.uint8)])
def test_arrays_of_another_dtype(field, dtype, bundle):
    array = getattr(bundle.layers[Q], field)
    with pytest.raises(BundleError) as caught:
        check_bundle(changed(bundle, Q, **{field: array.astype(dtype)}))
    assert str(caught.value) == f"{Q}: {field}: has dtype {np.dtype(dtype)}; {array.dtype} is required"
