"""The directory that ``compress train`` leaves: a plain Hugging Face model, and what was done to it.

``from_pretrained`` loads it without this package; removed weights are true zeros. Attention maps are then
whole: :func:`load_model_dir` prunes them as in training. Beside the usual files lie ``compression.json`` (the
task, the structure of every linear layer), ``recipe.yaml``, ``metrics.json`` (also the versions, the device
and the number of rows that it was made with) and ``train_log.jsonl``. Block indices are not stored: the
structure finds them again in the weights. A model that was trained in integers has
``activation_scales.json`` too: with the weights it determines them all.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from compressor.attention_maps import set_map_pruning
from compressor.budget import PerLayer
from compressor.group_structures import Blocks, HeadsRows, RowsAndColumns
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.pools import PatternPool
from compressor.projection import Structure
from compressor.reload import architecture_of, load_tokenizer
from compressor.removed_units import find_units
from compressor.structures import NM, Dense, Pattern, Unstructured
from compressor.targets import target_layers
from compressor.task_definition import Task
from compressor.tasks import stored_task
from compressor.text_file import StrPath

COMPRESSION_FILE = "compression.json"
RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.json"
LOG_FILE = "train_log.jsonl"

_PARAMETRIC = {"nm": NM, "unstructured": Unstructured, "blocks": Blocks, "rows_columns": RowsAndColumns,
               "heads_rows": HeadsRows}

FORMAT = "compressor-model"
SCHEMA_VERSION = 1


class ModelDirError(ValueError):
    """A model directory that cannot be used; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Role ("q" ... "ffn2"), shape (rows, K) and name of the structure of a layer; its own density, if a
    budget chose one."""

    role: str
    shape: tuple[int, int]
    structure: str
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class CompressionInfo:
    """What ``compression.json`` says.

    Parameters
    ----------
    task : Task
    max_tokens : int
        Sequence length the model was trained for.
    structure : see :mod:`compressor.structures`
        What the pruned layers have; Dense if there are none.
    layers : dict of str to LayerInfo
        Every linear layer of the encoder, in execution order, by path relative to the encoder.
    map_pruning : IntegerMapPruning or None
        Patterns of attention maps and their power, for all layers; None if maps are whole.
    units : tuple of (int, int), optional
        Heads and neurons that are left in each encoder layer; None if no heads, rows or blocks were removed.
    """

    task: Task
    max_tokens: int
    structure: Structure
    layers: dict[str, LayerInfo]
    map_pruning: IntegerMapPruning | None = None
    units: tuple[tuple[int, int], ...] | None = None

    @property
    def pool(self):
        """The pattern pool, or None if no layer has structure "pattern"."""
        return getattr(self.structure, "pool", None)

    def structure_of(self, name):
        """The structure of one layer, see :mod:`compressor.structures`."""
        return Dense() if self.layers[name].structure == "dense" else self.whole_structure.of_layer(name)

    @property
    def whole_structure(self):
        """The structure of all pruned layers; a PerLayer if they differ."""
        shares = [(name, 1.0 if layer.structure == "dense" else layer.density)
                  for name, layer in self.layers.items()]
        kinds = {(layer.role, layer.structure) for layer in self.layers.values()}
        uniform = (all(layer.density is None for layer in self.layers.values())
                   and len(kinds) == len({role for role, _ in kinds}))
        return self.structure if uniform else PerLayer(self.structure, tuple(shares))


def describe(model, *, structure, pruned, task, max_tokens, map_pruning=None, removed=False):
    """The CompressionInfo of a model whose layers named in ``pruned`` have ``structure``.

    ``removed``: heads, rows or blocks have been removed; heads and neurons are counted.
    """
    layers, own = {}, isinstance(structure, PerLayer)
    for name, target in target_layers(model).items():
        chosen = structure.of_layer(name) if name in pruned else Dense()
        layers[name] = LayerInfo(role=target.role, shape=tuple(target.module.weight.shape),
                                 structure=chosen.name,
                                 density=getattr(chosen, "density", None) if own else None)
    base = structure.base if own else structure
    return CompressionInfo(task=task, max_tokens=max_tokens,
                           structure=base if pruned else Dense(), layers=layers,
                           map_pruning=map_pruning,
                           units=tuple(units.counts for units in find_units(model)) if removed else None)


def check_model(model, info):
    """Raise ModelDirError, naming the layer, unless every layer of ``model`` is as ``info`` says."""
    targets = target_layers(model)
    if list(targets) != list(info.layers):
        odd = sorted(set(targets) ^ set(info.layers))
        raise ModelDirError(f"the model's linear layers differ from {COMPRESSION_FILE}: "
                            f"{', '.join(odd[:3]) or 'other order'}")
    for name, target in targets.items():
        layer = info.layers[name]
        if tuple(target.module.weight.shape) != layer.shape:
            raise ModelDirError(f"{name}: shape {tuple(target.module.weight.shape)}, but "
                                f"{COMPRESSION_FILE} says {layer.shape}")
        try:
            info.structure_of(name).verify(target.module.weight.detach())
        except ValueError as error:
            raise ModelDirError(f"{name}: {error}") from error
    if info.units is not None and (found := tuple(units.counts for units in find_units(model))) != info.units:
        raise ModelDirError(f"the model has (heads, neurons) {list(found)} in its layers; {COMPRESSION_FILE} "
                            f"says {list(info.units)}")


def summarize(model, info):
    """Counts over the linear layers of the encoder: weights, nonzeros, and int8 storage in bits."""
    weights = nonzero = bits = 0
    for name, target in target_layers(model).items():
        weight = target.module.weight
        weights += weight.numel()
        nonzero += int((weight != 0).sum())
        bits += info.structure_of(name).weight_bits(weight)
    units = {} if info.units is None else {"heads": [heads for heads, _ in info.units],
                                           "neurons": [neurons for _, neurons in info.units]}
    return {"structure": info.whole_structure.description, "stored_as": info.structure.stored().name,
            "encoder_weights": weights, "nonzero_weights": nonzero, "dense_int8_bits": 8 * weights,
            "compressed_int8_bits": bits, **units}


def write_model_dir(folder, *, model, tokenizer, info, recipe, metrics, scales=None):
    """Write everything, aside first; ``compression.json`` arrives last and marks the whole.

    ``scales`` are the EncoderScales of a model that was trained in integers.

    Raises
    ------
    ModelDirError
        If a layer does not have the structure that ``info`` gives it; nothing is written then.
    """
    check_model(model, info)
    folder = Path(folder)
    aside = folder / ".unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        (aside / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
        _write_json(aside / METRICS_FILE, metrics)
        if scales is not None:
            scales.save(aside)
        _write_json(aside / COMPRESSION_FILE, _to_plain(info))
        for path in sorted(aside.iterdir(), key=lambda path: path.name == COMPRESSION_FILE):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_model_dir(folder):
    """Model, as it was trained (attention maps pruned if they were), tokenizer and CompressionInfo.

    Raises
    ------
    ModelDirError
        If the directory is damaged, or a layer does not have the structure that it says.
    """
    info = read_compression(folder)
    try:
        kind = AutoModelForQuestionAnswering if info.task.spans else AutoModelForSequenceClassification
        model = kind.from_pretrained(folder, local_files_only=True)
        architecture_of(model)  # refuses those whose tokens nobody knows
        tokenizer = load_tokenizer(folder, model.config)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelDirError(f"{folder}: {' '.join(str(error).split())[:300]}") from error
    check_model(model, info)
    set_map_pruning(model, info.map_pruning)
    return model, tokenizer, info


def read_compression(folder: StrPath) -> CompressionInfo:
    """The CompressionInfo of a model directory.

    Raises
    ------
    ModelDirError
        If there is none, or it is damaged.
    """
    path = Path(folder) / COMPRESSION_FILE
    if not path.is_file():
        raise ModelDirError(f"{folder}: no {COMPRESSION_FILE}; it is not, or not yet, the output of "
                            "compress train")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if (values["format"], values["schema_version"]) != (FORMAT, SCHEMA_VERSION):
            raise ModelDirError(f"{path}: format {values['format']} version {values['schema_version']}; "
                                f"this program reads {FORMAT} version {SCHEMA_VERSION}")
        structure = _structure_from_plain(values)
        maps = values.get("attention_maps")
        if maps is not None:
            maps = IntegerMapPruning(patterns=_read_patterns(maps["patterns"]), power=maps["power"])
        layers = {name: LayerInfo(role=layer["role"], shape=tuple(layer["shape"]),
                                  structure=layer["structure"], density=layer.get("density"))
                  for name, layer in values["layers"].items()}
        odd = {layer.structure for layer in layers.values()} - {"dense", structure.name}
        if odd:
            raise ModelDirError(f"{path}: a layer has structure {min(odd)}, but the file describes "
                                f"{structure.description}")
        task = stored_task(values["task"], values["fields"], values["labels"], values["metrics"])
        return CompressionInfo(task=task, max_tokens=values["max_tokens"], structure=structure, layers=layers,
                               map_pruning=maps, units=values.get("units") and tuple(
                                   (heads, neurons) for heads, neurons in values["units"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ModelDirError):
            raise
        raise ModelDirError(f"{path}: damaged: {type(error).__name__}: {error}") from error


def _structure_from_plain(values):
    # Patterns are recognized by their pool; other structures have a section of their own.
    pool, section = values["pool"], values.get("structure")
    if pool is not None:
        return Pattern(PatternPool(patterns=_read_patterns(pool["patterns"]), keep=pool["keep"],
                                   balance=pool["balance"]))
    if section is None:
        return Dense()
    return _PARAMETRIC[section["kind"]](**{key: value for key, value in section.items() if key != "kind"})


def _to_plain(info):
    pool = info.pool and {"patterns": _plain_patterns(info.pool.patterns),
                          "keep": info.pool.keep, "balance": info.pool.balance}
    maps = info.map_pruning and {"patterns": _plain_patterns(info.map_pruning.patterns),
                                 "power": info.map_pruning.power}
    section = None
    if info.structure.name in _PARAMETRIC:
        section = {"kind": info.structure.name, **asdict(info.structure)}
    return {"format": FORMAT, "schema_version": SCHEMA_VERSION, "task": info.task.name,
            "fields": info.task.fields, "labels": info.task.labels, "metrics": info.task.metrics,
            "max_tokens": info.max_tokens, "pool": pool, "structure": section,
            "attention_maps": maps, "units": info.units,
            "layers": {name: {"role": layer.role, "shape": list(layer.shape),
                              "structure": layer.structure,
                              **({} if layer.density is None else {"density": layer.density})}
                       for name, layer in info.layers.items()}}


def _plain_patterns(patterns):
    return ["".join(map(str, pattern)) for pattern in patterns.tolist()]


def _read_patterns(lines):
    return np.array([[int(digit) for digit in line] for line in lines], np.uint8)


def _write_json(path, values):
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
