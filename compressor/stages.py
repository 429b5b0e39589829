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
from compressor.attention_maps import set_map_pruning
from compressor.blocks import to_blocks
from compressor.encoder_scales import EncoderScales
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.map_pool import prune_maps
from compressor.masks import FixedMasks
from compressor.pools import PatternPool, build_pool
from compressor.sr_ste import SrSteState
from compressor.structures import NM, Dense, Pattern, Unstructured
from compressor.targets import target_layers

STATE_FILE = "compression_state.safetensors"
"""Name of the state within a checkpoint folder; it is written last, so it marks a complete one."""

_POOL_SAMPLE = 200_000  # blocks handed to the pool builder, which samples them again


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed; the message is one line."""


class StageState:
    """Structure, ADMM or SR-STE state, masks and activation scales of a model while a recipe runs.

    Parameters
    ----------
    model : PreTrainedModel
    recipe : Recipe
    given : structure, optional
        What the model already has; needed where the recipe says ``structure: {kind: model}``.
    given_maps : IntegerMapPruning, optional
        How its attention maps are pruned; kept unless the recipe has ``attention_maps`` of its own.
    measure_norms : function of nothing, optional
        Returns the input norms of the layers, see :func:`compressor.activation_norms.input_norms`;
        called once, if the recipe's projections are error-aware.

    Attributes
    ----------
    weights : dict of str to Parameter
        The weights that the recipe prunes, by module path relative to the encoder.
    structure : see :mod:`compressor.structures`
        Dense until a pruning stage begins.
    norms : dict of str to tensor
        Input norms; empty where projections go by magnitude.
    admm : AdmmState or None
    sr_ste : SrSteState or None
    masks : FixedMasks or None
        Set from the moment of the hard projection on.
    map_pruning : IntegerMapPruning or None
        Set from the moment on when the model's attention maps are pruned.
    scales : EncoderScales or None
        Set by the trainer when a quantize stage begins.
    """

    def __init__(self, model, recipe, *, given=None, given_maps=None, measure_norms=None):
        self.recipe = recipe
        self.model = model
        self.given = given
        self.measure_norms = measure_norms
        self.targets = target_layers(model, recipe.targets.roles)
        self.weights = {name: target.module.weight for name, target in self.targets.items()}
        self.structure = Dense()
        self.norms = {}
        self.stage = None
        self.admm = self.sr_ste = self.masks = self.map_pruning = self.scales = None
        if given_maps is not None and recipe.attention_maps is None:
            self.map_pruning = given_maps
            set_map_pruning(model, given_maps)
        for name, weight in self.weights.items():
            try:
                # A pattern pool comes from the weights of a later step; it fits wherever blocks do.
                (_structure_of(recipe.structure, given) or self.structure).check_shape(weight.shape)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    @property
    def is_pruning(self):
        """Whether a pruning stage has begun."""
        return not isinstance(self.structure, Dense)

    def enter(self, stage, optimizer=None):
        """Begin a stage; does nothing if it has begun. Returns what is worth logging, as a dict."""
        if self.stage == stage.label:
            return {}
        self.stage = stage.label
        if stage.method == "dense" or not self.recipe.prunes:
            return {}
        if not self.is_pruning:
            if self.recipe.structure.score == "activation":
                self.norms = self.measure_norms()
            self.structure = self.planned_structure()
        if stage.method == "admm":
            self._enter_admm(stage)
            return {}
        if stage.method == "sr_ste":
            self.admm = None
            self.sr_ste = SrSteState(self.weights, self.structure, decay=stage.decay, norms=self.norms)
            return {}
        return self.freeze(optimizer)

    def begin_maps(self, stage, batches):
        """Prune attention maps if a stage wants it and they are not; returns what is worth logging.

        ``batches``: function of a number of training rows that gives their model inputs.
        """
        if self.map_pruning is not None or not self.recipe.prunes_maps_in(stage):
            return {}
        maps = self.recipe.attention_maps
        self.map_pruning, kept = prune_maps(self.model, batches(maps.rows), size=maps.size, power=maps.power,
                                            weight_pool=getattr(self.structure, "pool", None))
        return {"map_patterns": len(self.map_pruning.patterns), "map_retained_weights": kept}

    def _enter_admm(self, stage):
        if self.admm is None:
            self.admm = AdmmState(self.weights, self.structure, rho=stage.rho, init=stage.init,
                                  norms=self.norms)
        else:  # a second ADMM stage: the scaled dual is the true one over rho
            self.admm.rescale_dual(stage.rho)

    def freeze(self, optimizer=None):
        """Project the weights for good; does nothing if that has happened."""
        if self.masks is not None:
            return {}
        self.masks, retained = FixedMasks.project(self.weights, self.structure, self.norms)
        self.admm = self.sr_ste = None
        if optimizer is not None:
            self.masks.clear_moments(optimizer)
        return {"frozen_retained_energy": retained}

    def planned_structure(self):
        """The structure that pruning will ask for; a pool built from today's weights has its final size."""
        return _structure_of(self.recipe.structure, self.given) or Pattern(self._build_pool())

    def _build_pool(self):
        pool = self.recipe.pool
        share = max(1, sum(weight.numel() // 16 for weight in self.weights.values()) // _POOL_SAMPLE)
        blocks = np.concatenate([to_blocks(weight.detach().float()).cpu().numpy()[::share]
                                 for weight in self.weights.values()])
        return build_pool(pool.build, blocks, size=pool.size, keep=pool.keep, balance=pool.balance,
                          seed=pool.seed, file=pool.file)

    def before_forward(self, stage, done):
        """Prepare the weights of a step; ``done`` steps of the stage have run."""
        if self.sr_ste is not None:
            if done and done % stage.interval == 0:
                self.sr_ste.refresh()
            self.sr_ste.hide_removed()

    def before_clipping(self, stage):
        """Adjust complete gradients; returns the norm of the ADMM penalty's part."""
        if self.admm is not None and stage.coupling == "loss":
            return self.admm.add_penalty_gradient()
        if self.sr_ste is not None:
            self.sr_ste.restore()
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
        if self.masks is not None or not self.is_pruning:
            yield
            return
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.structure.project(weight, self.norms.get(name))[0])
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
        tensors |= {f"norms/{name}": norms for name, norms in self.norms.items()}
        if self.map_pruning is not None:
            tensors["map_patterns"] = torch.tensor(self.map_pruning.patterns)
        holds, state = next(((name, state) for name in ("masks", "admm", "sr_ste")
                             if (state := getattr(self, name)) is not None), ("nothing", None))
        if state is not None:
            tensors |= state.tensors()
        if self.admm is not None:
            updates = self.admm.updates
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"stage": self.stage or "", "updates": str(updates), "holds": holds,
                    "rho": str(self.admm.rho if self.admm else 0.0),
                    "scales": self.scales.to_json() if self.scales else ""}
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
        self.scales = EncoderScales.from_json(metadata["scales"]) if metadata["scales"] else None
        if "pool" in tensors and self.recipe.structure.kind == "pattern":
            pool = self.recipe.pool
            self.structure = Pattern(PatternPool(patterns=tensors["pool"].numpy(), keep=pool.keep,
                                                 balance=pool.balance))
        elif metadata["holds"] != "nothing":
            self.structure = _structure_of(self.recipe.structure, self.given)
        if "map_patterns" in tensors:
            self.map_pruning = IntegerMapPruning(patterns=tensors["map_patterns"].numpy(),
                                                 power=(self.map_pruning or self.recipe.attention_maps).power)
            set_map_pruning(self.model, self.map_pruning)
        for name, weight in self.weights.items():
            for kind in ("z", "u", "mask"):
                found = tensors.get(f"{kind}/{name}")
                if found is not None and found.shape != weight.shape:
                    raise ValueError(f"{kind} of {name} has shape {tuple(found.shape)}, "
                                     f"not {tuple(weight.shape)}")
        self.norms = {name: tensors[f"norms/{name}"].to(weight.device)
                      for name, weight in self.weights.items() if f"norms/{name}" in tensors}
        if metadata["holds"] == "admm":
            self.admm = AdmmState(self.weights, self.structure, rho=float(metadata["rho"]), norms=self.norms)
            self.admm.load(tensors, int(metadata["updates"]))
        elif metadata["holds"] == "sr_ste":
            decay = next(stage.decay for stage in self.recipe.stages if stage.label == self.stage)
            self.sr_ste = SrSteState(self.weights, self.structure, decay=decay, norms=self.norms)
            self.sr_ste.load(tensors)
        elif metadata["holds"] == "masks":
            self.masks = FixedMasks.load(self.weights, tensors)


def _structure_of(section, given):
    """The structure that a recipe asks for; None for patterns, whose pool comes from the weights."""
    if section.kind == "model":
        return given
    if section.kind == "nm":
        return NM(section.keep, section.group)
    return Unstructured(section.density) if section.kind == "unstructured" else None
