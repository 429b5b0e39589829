"""The stages' state in a checkpoint: one safetensors file, written last, so that it marks a complete one."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from compressor.attention_maps import set_map_pruning
from compressor.budget import PerLayer
from compressor.encoder_scales import EncoderScales
from compressor.group_structures import structure_of
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.masks import FixedMasks
from compressor.pools import PatternPool
from compressor.pruning_method import NotPruning
from compressor.structures import Pattern
from compressor.text_file import whole_file

STATE_FILE = "compression_state.safetensors"
"""Name of the state within a checkpoint folder."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the message is one line."""


def save_state(state, folder):
    """Write a StageState into a checkpoint folder, aside first and then renamed."""
    tensors = state.method.tensors()
    if (pool := getattr(state.structure, "pool", None)) is not None:
        tensors["pool"] = torch.tensor(pool.patterns)
    tensors |= {f"norms/{name}": norms for name, norms in state.norms.items()}
    if state.map_pruning is not None:
        tensors["map_patterns"] = torch.tensor(state.map_pruning.patterns)
    if state.removed is not None:
        tensors |= state.removed.tensors()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"stage": state.stage or "", "holds": state.method.name,
                "scales": state.scales.to_json() if state.scales else "",
                "shares": json.dumps(dict(getattr(state.structure, "shares", ()))),
                "budget": json.dumps(state.budget_report)}
    with whole_file(Path(folder) / STATE_FILE) as aside:
        save_file(tensors, aside, metadata=metadata)


def load_state(state, folder):
    """Inverse of :func:`save_state`; CheckpointError if the file is missing or does not fit the model."""
    path = Path(folder) / STATE_FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _restore(state, metadata, tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not the state of this recipe and model: {error}") from error


def _restore(state, metadata, tensors):
    recipe = state.recipe
    state.stage = metadata["stage"] or None
    state.scales = EncoderScales.from_json(metadata["scales"]) if metadata["scales"] else None
    if "pool" in tensors and recipe.structure.kind == "pattern":
        pool = recipe.pool
        state.structure = Pattern(PatternPool(patterns=tensors["pool"].numpy(), keep=pool.keep,
                                              balance=pool.balance))
    elif metadata["holds"] != NotPruning.name:
        state.structure = structure_of(recipe.structure, state.given)
    if shares := json.loads(metadata["shares"]):
        state.structure = PerLayer(getattr(state.structure, "base", state.structure), tuple(shares.items()))
    state.budget_report = json.loads(metadata["budget"])
    if "map_patterns" in tensors:
        power = (state.map_pruning or recipe.attention_maps).power
        state.map_pruning = IntegerMapPruning(patterns=tensors["map_patterns"].numpy(), power=power)
        set_map_pruning(state.model, state.map_pruning)
    for name, weight in state.weights.items():
        for kind in ("z", "u", "mask"):
            found = tensors.get(f"{kind}/{name}")
            if found is not None and found.shape != weight.shape:
                raise ValueError(f"{kind} of {name} has shape {tuple(found.shape)}, "
                                 f"not {tuple(weight.shape)}")
    state.norms = {name: tensors[f"norms/{name}"].to(weight.device)
                   for name, weight in state.weights.items() if f"norms/{name}" in tensors}
    if state.removed is not None:
        state.removed.load(tensors)
    _restore_method(state, metadata["holds"], tensors)


def _restore_method(state, holds, tensors):
    if holds == FixedMasks.name:
        biases = {f"{name}.bias": target.module.bias for name, target in state.targets.items()
                  if f"mask/{name}.bias" in tensors}
        state.method = FixedMasks.from_tensors(state.weights | biases, tensors)
    elif holds != NotPruning.name:
        stage = next((stage for stage in state.recipe.stages if stage.label == state.stage), None)
        if stage is None:
            raise ValueError(f"the recipe has no stage {state.stage}")
        state.begin_method(stage)
        state.method.load(tensors)
