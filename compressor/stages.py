"""What happens to the weights in each stage of a recipe: the state machine inside the trainer.

It knows nothing of data or losses. The trainer calls it at fixed points of every optimizer step; its
whole state goes into one file of every checkpoint, so that a resumed run continues exactly.
"""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from compressor.admm import AdmmState
from compressor.blocks import to_blocks
from compressor.masks import FixedMasks
from compressor.pools import PatternPool, build_pool
from compressor.structures import Dense, Pattern
from compressor.targets import target_layers

STATE_FILE = "compression_state.safetensors"
"""Name of the state within a checkpoint folder; it is written last, so it marks a complete one."""

_POOL_SAMPLE = 200_000  # blocks handed to the pool builder, which samples them again


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the message is one line."""


class StageState:
    """Structure, ADMM state and masks of a model while a recipe runs.

    Parameters
    ----------
    model : PreTrainedModel
    recipe : Recipe

    Attributes
    ----------
    weights : dict of str to Parameter
        The weights that the recipe prunes, by module path relative to the encoder.
    structure : Dense or Pattern
        Dense until a pruning stage begins.
    admm : AdmmState or None
    masks : FixedMasks or None
        Set from the moment of the hard projection on.
    """

    def __init__(self, model, recipe):
        self.recipe = recipe
        self.targets = target_layers(model, recipe.targets.roles)
        self.weights = {name: target.module.weight for name, target in self.targets.items()}
        self.structure = Dense()
        self.stage = None
        self.admm = None
        self.masks = None
        for name, weight in self.weights.items():
            try:
                self.structure.verify(weight)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def enter(self, stage, optimizer=None):
        """Begin a stage; does nothing if it has begun. Returns what is worth logging, as a dict."""
        if self.stage == stage.label:
            return {}
        self.stage = stage.label
        if stage.method == "dense":
            return {}
        if isinstance(self.structure, Dense):
            self.structure = Pattern(self._build_pool())
        if stage.method == "admm":
            self._enter_admm(stage)
            return {}
        return self.freeze(optimizer)

    def _enter_admm(self, stage):
        if self.admm is None:
            self.admm = AdmmState(self.weights, self.structure, rho=stage.rho, init=stage.init)
        else:  # a second ADMM stage: the scaled dual is the true one over rho
            self.admm.rescale_dual(stage.rho)

    def freeze(self, optimizer=None):
        """Project the weights for good; does nothing if that has happened."""
        if self.masks is not None:
            return {}
        self.masks, retained = FixedMasks.project(self.weights, self.structure)
        self.admm = None
        if optimizer is not None:
            self.masks.clear_moments(optimizer)
        return {"frozen_retained_energy": retained}

    def _build_pool(self):
        pool = self.recipe.pool
        share = max(1, sum(weight.numel() // 16 for weight in self.weights.values()) // _POOL_SAMPLE)
        blocks = np.concatenate([to_blocks(weight.detach().float()).cpu().numpy()[::share]
                                 for weight in self.weights.values()])
        return build_pool(pool.build, blocks, size=pool.size, keep=pool.keep, balance=pool.balance,
                          seed=pool.seed, file=pool.file)

    def before_clipping(self, stage):
        """Adjust complete gradients; returns the norm of the ADMM penalty's part."""
        if self.admm is not None and stage.coupling == "loss":
            return self.admm.add_penalty_gradient()
        if self.masks is not None:
            self.masks.apply_to_gradients()
        return 0.0

    def after_optimizer_step(self, stage, relative_rate):
        """Adjust weights that the optimizer has just moved."""
        if self.admm is not None and stage.coupling == "decoupled":
            self.admm.proximal_step(relative_rate)
        if self.masks is not None:
            self.masks.apply()

    @contextmanager
    def projected(self):
        """Within the context the model holds the projection of its weights; afterwards its own again."""
        if self.masks is not None or isinstance(self.structure, Dense):
            yield
            return
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for weight in self.weights.values():
                weight.copy_(self.structure.project(weight)[0])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(own[name])

    def save(self, folder):
        """Write the state into a checkpoint folder, aside first and then renamed."""
        tensors, updates = {}, 0
        if isinstance(self.structure, Pattern):
            tensors["pool"] = torch.tensor(self.structure.pool.patterns)
        if self.admm is not None:
            tensors |= self.admm.tensors()
            updates = self.admm.updates
        if self.masks is not None:
            tensors |= self.masks.tensors()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"stage": self.stage or "", "updates": str(updates),
                    "holds": "masks" if self.masks else "admm" if self.admm else "nothing",
                    "rho": str(self.admm.rho if self.admm else 0.0)}
        target = Path(folder) / STATE_FILE
        aside = target.with_name(f".{target.name}.part")
        save_file(tensors, aside, metadata=metadata)
        os.replace(aside, target)

    def load(self, folder):
        """Inverse of :meth:`save`; CheckpointError if the file is missing or does not fit the model."""
        path = Path(folder) / STATE_FILE
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self._restore(metadata, tensors)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: not the state of this recipe and model: {error}") from error

    def _restore(self, metadata, tensors):
        self.stage = metadata["stage"] or None
        if "pool" in tensors:
            pool = self.recipe.pool
            self.structure = Pattern(PatternPool(patterns=tensors["pool"].numpy(), keep=pool.keep,
                                                 balance=pool.balance))
        for name, weight in self.weights.items():
            for kind in ("z", "u", "mask"):
                found = tensors.get(f"{kind}/{name}")
                if found is not None and found.shape != weight.shape:
                    raise ValueError(f"{kind} of {name} has shape {tuple(found.shape)}, "
                                     f"not {tuple(weight.shape)}")
        if metadata["holds"] == "admm":
            self.admm = AdmmState(self.weights, self.structure, rho=float(metadata["rho"]))
            self.admm.load(tensors, int(metadata["updates"]))
        elif metadata["holds"] == "masks":
            self.masks = FixedMasks.load(self.weights, tensors)
