"""The stages' state in a checkpoint: one safetensors file, written last, so that it marks a complete one."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from compressor.admm import AdmmState
from compressor.attention_maps import set_map_pruning
from compressor.budget import PerLayer
from compressor.encoder_scales import EncoderScales
from compressor.gradual import GradualPruning
from compressor.group_lasso import GroupLasso
from compressor.group_structures import structure_of
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.masks import FixedMasks
from compressor.pools import PatternPool
from compressor.sr_ste import SrSteState
from compressor.structures import Pattern

STATE_FILE = "compression_state.safetensors"
"""Name of the state within a checkpoint folder."""

METHODS = ("masks", "admm", "sr_ste", "gradual", "lasso", "topk")
"""Attributes of StageState of which one at most is set: what the present stage works with."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the message is one line."""


def save_state(state, folder):
    """Write a StageState into a checkpoint folder, aside first and then renamed."""
    tensors, updates = {}, 0
    if (pool := getattr(state.structure, "pool", None)) is not None:
        tensors["pool"] = torch.tensor(pool.patterns)
    tensors |= {f"norms/{name}": norms for name, norms in state.norms.items()}
    if state.map_pruning is not None:
        tensors["map_patterns"] = torch.tensor(state.map_pruning.patterns)
    holds = next((name for name in METHODS if getattr(state, name) is not None), "nothing")
    if holds != "nothing":
        tensors |= getattr(state, holds).tensors()
    if state.removed is not None:
        tensors |= state.removed.tensors()
    if state.admm is not None:
        updates = state.admm.updates
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"stage": state.stage or "", "updates": str(updates), "holds": holds,
                "rho": str(state.admm.rho if state.admm else 0.0),
                "scales": state.scales.to_json() if state.scales else "",
                "shares": json.dumps(dict(getattr(state.structure, "shares", ()))),
                "budget": json.dumps(state.budget_report)}
    target = Path(folder) / STATE_FILE
    aside = target.with_name(f".{target.name}.part")
    save_file(tensors, aside, metadata=metadata)
    os.replace(aside, target)


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
    elif metadata["holds"] != "nothing":
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
    _restore_method(state, metadata, tensors)


def _restore_method(state, metadata, tensors):
    holds = metadata["holds"]
    stage = next((stage for stage in state.recipe.stages if stage.label == state.stage), None)
    if holds == "admm":
        state.on_grid = stage.values == "int8"
        state.admm = AdmmState(state.weights, state.target, rho=float(metadata["rho"]), norms=state.norms)
        state.admm.load(tensors, int(metadata["updates"]))
    elif holds == "sr_ste":
        state.sr_ste = SrSteState(state.weights, state.structure, decay=stage.decay, norms=state.norms)
        state.sr_ste.load(tensors)
    elif holds == "gradual":
        state.gradual = GradualPruning(state.weights, state.structure, state.norms)
        state.gradual.load(tensors)
    elif holds == "lasso":
        state.lasso = GroupLasso(state.weights, state.structure, strength=stage.strength)
        state.lasso.load(tensors)
    elif holds == "topk":
        state.enter_topk(stage)
        state.topk.load(tensors)
    elif holds == "masks":
        biases = {f"{name}.bias": target.module.bias for name, target in state.targets.items()
                  if f"mask/{name}.bias" in tensors}
        state.masks = FixedMasks.load(state.weights | biases, tensors)
