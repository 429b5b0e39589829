"""What happens to the weights in each stage of a recipe: the state machine inside the trainer.

It knows nothing of data or losses. The trainer calls it at fixed points of every optimizer step; its
whole state goes into one file of every checkpoint, so that a resumed run continues exactly.
"""

from contextlib import contextmanager

import torch

from compressor.activation_norms import input_norms
from compressor.admm import AdmmState
from compressor.attention_maps import set_map_pruning
from compressor.encoder_fit import fit_encoder
from compressor.gradual import GradualPruning
from compressor.group_lasso import GroupLasso
from compressor.group_structures import HeadsRows, structure_of
from compressor.learned_topk import LearnedTopK, block_groups, head_and_row_groups
from compressor.map_pool import prune_maps
from compressor.masks import FixedMasks
from compressor.recipe_structure import recipe_structure
from compressor.removed_units import RemovedUnits
from compressor.sr_ste import SrSteState
from compressor.stage_checkpoint import load_state, save_state
from compressor.structures import Dense
from compressor.targets import target_layers
from compressor.weight_grid import IntegerGrid

NORM_ROWS = 256
"""Training rows on which the inputs of error-aware projections are measured."""


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
    given_removed : bool
        Whether heads, rows or blocks have been removed from it; they stay away.
    first_batches : function of a number of rows, optional
        Returns the model inputs of so many training rows, from the first; called where a recipe's
        projections are error-aware, attention maps are pruned, or layers are fitted.

    Attributes
    ----------
    weights : dict of str to Parameter
        The weights that the recipe prunes, by module path relative to the encoder.
    structure : see :mod:`compressor.structures`
        Dense until a pruning stage begins.
    on_grid : bool
        Whether projections are to int8's grid as well: since an ADMM stage with ``values: int8``.
    budget_report : dict or None
        What the recipe's budget is expected to take, see :func:`compressor.budget.choose_structure`.
    norms : dict of str to tensor
        Input norms; empty where projections go by magnitude.
    admm : AdmmState or None
    sr_ste : SrSteState or None
    gradual : GradualPruning or None
    lasso : GroupLasso or None
    topk : LearnedTopK or None
    removed : RemovedUnits or None
    masks : FixedMasks or None
        Set from the moment of the hard projection on.
    map_pruning : IntegerMapPruning or None
        Set from the moment on when the model's attention maps are pruned.
    scales : EncoderScales or None
        Set by the trainer when a quantize stage begins.
    """

    def __init__(self, model, recipe, *, given=None, given_maps=None, given_removed=False,
                 first_batches=None):
        self.recipe = recipe
        self.model = model
        self.given = given
        self.first_batches = first_batches
        self.targets = target_layers(model, recipe.targets.roles)
        self.weights = {name: target.module.weight for name, target in self.targets.items()}
        self.structure = Dense()
        self.on_grid = False
        self.norms = {}
        self.stage = self.budget_report = None
        self.admm = self.sr_ste = self.lasso = self.topk = self.gradual = None
        self.masks = self.map_pruning = self.scales = None
        self.removed = RemovedUnits(target_layers(model)) if given_removed else None
        if given_maps is not None and recipe.attention_maps is None:
            self.map_pruning = given_maps
            set_map_pruning(model, given_maps)
        for name, weight in self.weights.items():
            try:
                # A pattern pool comes from the weights of a later step; it fits wherever blocks do.
                (structure_of(recipe.structure, given) or self.structure).check_shape(weight.shape)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    @property
    def is_pruning(self):
        """Whether a pruning stage has begun."""
        return self.on_grid or not isinstance(self.structure, Dense)

    @property
    def target(self):
        """What weights are projected to."""
        return IntegerGrid(self.structure) if self.on_grid else self.structure

    @property
    def removes_units(self):
        """Whether heads, rows or blocks are removed, by this recipe or before it."""
        return self.removed is not None or self.structure.removes_units

    def enter(self, stage, optimizer=None):
        """Begin a stage; does nothing if it has begun. Returns what is worth logging, as a dict."""
        if self.stage == stage.label:
            return {}
        self.stage = stage.label
        if stage.method == "dense" or not self.recipe.prunes:
            return {}
        if not self.is_pruning:
            if self.recipe.structure.score == "activation":
                self.norms = input_norms(self.model, self.targets, self.first_batches(NORM_ROWS))
            self.structure = self.planned_structure()
            if self.budget_report is not None:
                logs = {f"budget_{key}": value for key, value in self.budget_report.items() if key != "unit"}
                return logs | self._enter_method(stage, optimizer)
        return self._enter_method(stage, optimizer)

    def _enter_method(self, stage, optimizer):
        if stage.method == "admm":
            self._enter_admm(stage)
            return {}
        if stage.method == "sr_ste":
            self.admm = None
            self.sr_ste = SrSteState(self.weights, self.structure, decay=stage.decay, norms=self.norms)
            return {}
        if stage.method == "gradual":
            self.gradual = GradualPruning(self.weights, self.structure, self.norms)
            return {}
        if stage.method == "group_lasso":
            self.lasso = GroupLasso(self.weights, self.structure, strength=stage.strength)
            return {}
        if stage.method == "learned_topk":
            self.enter_topk(stage)
            return {}
        if stage.method == "retrain" and stage.fit_rows:
            return self.fit(stage.fit_rows, optimizer)
        return self.freeze(optimizer)

    def enter_topk(self, stage):
        """Begin to learn which units stay."""
        if isinstance(self.structure, HeadsRows):
            config = self.model.config
            groups = head_and_row_groups(self.targets, config.hidden_size // config.num_attention_heads)
        else:
            groups = block_groups(self.targets, self.structure.unit)
        self.topk = LearnedTopK(self.targets, groups, stage)

    def begin_maps(self, stage):
        """Prune attention maps if a stage wants it and they are not; returns what is worth logging."""
        if self.map_pruning is not None or not self.recipe.prunes_maps_in(stage):
            return {}
        maps = self.recipe.attention_maps
        self.map_pruning, kept = prune_maps(
            self.model, self.first_batches(maps.rows), size=maps.size, power=maps.power,
            weight_pool=getattr(self.structure, "pool", None))
        return {"map_patterns": len(self.map_pruning.patterns), "map_retained_weights": kept}

    def _enter_admm(self, stage):
        self.on_grid = stage.values == "int8"
        if self.admm is None:
            self.admm = AdmmState(self.weights, self.target, rho=stage.rho, init=stage.init, norms=self.norms)
        else:  # a second ADMM stage: the scaled dual is the true one over rho
            self.admm.structure = self.target
            self.admm.rescale_dual(stage.rho)

    def freeze(self, optimizer=None):
        """Project the weights for good; does nothing if that has happened."""
        if self.masks is not None:
            return {}
        if self.topk is not None:
            masks = self.topk.masks(self.topk.stage.neurons)
            self.masks, retained = FixedMasks.remove(self.topk.hidden.parameters, masks)
        else:
            self.masks, retained = FixedMasks.project(self.weights, self.target, self.norms)
        self.admm = self.sr_ste = self.lasso = self.topk = self.gradual = None
        if optimizer is not None:
            self.masks.clear_moments(optimizer)
        return {"frozen_retained_energy": retained}

    def fit(self, rows, optimizer=None):
        """Prune dense weights for good, to what the encoder puts out on training rows."""
        masks, error = fit_encoder(self.model, self.targets, self.structure, self.first_batches(rows),
                                   allowed=self.removed and self.removed.weight_mask)
        self.masks = FixedMasks(self.weights, masks)
        if self.removed is not None:
            self.removed.apply()
        if optimizer is not None:
            self.masks.clear_moments(optimizer)
        return {"fit_hidden_error": error}

    def planned_structure(self):
        """The structure that pruning will ask for; a pool built from today's weights has its final size."""
        structure, self.budget_report = recipe_structure(self.recipe, self.weights, given=self.given,
                                                         norms=self.norms)
        return structure

    def before_forward(self, stage, done):
        """Prepare the weights of a step; ``done`` steps of the stage have run."""
        if self.sr_ste is not None:
            if done and done % stage.interval == 0:
                self.sr_ste.refresh()
            self.sr_ste.hide_removed()
        if self.topk is not None:
            self.topk.hide_removed()

    def before_clipping(self, stage):
        """Adjust complete gradients; returns the norm of the part of ADMM's or Lasso's penalty."""
        if self.removed is not None:
            self.removed.apply_to_gradients()
        if self.admm is not None and stage.coupling == "loss":
            return self.admm.add_penalty_gradient()
        if self.lasso is not None and stage.solver == "penalty":
            return self.lasso.add_penalty_gradient()
        if self.topk is not None:
            self.topk.restore()
        if self.sr_ste is not None:
            self.sr_ste.restore()
        for masks in (self.masks, self.gradual and self.gradual.masks):
            if masks is not None:
                masks.apply_to_gradients()
        return 0.0

    def after_optimizer_step(self, stage, relative_rate):
        """Adjust weights that the optimizer has just moved."""
        if self.admm is not None and stage.coupling == "decoupled":
            self.admm.proximal_step(relative_rate)
        if self.lasso is not None and stage.solver == "proximal":
            self.lasso.proximal_step(relative_rate)
        if self.topk is not None:
            self.topk.step(relative_rate)
        for masks in (self.removed, self.masks, self.gradual and self.gradual.masks):
            if masks is not None:
                masks.apply()

    @contextmanager
    def projected(self):
        """Within the context the model holds the projection of its weights; afterwards its own again."""
        if self.masks is not None or not self.is_pruning:
            yield
            return
        if self.topk is not None:
            self.topk.hidden.hide(self.topk.masks(self.topk.stage.neurons))
            try:
                yield
            finally:
                self.topk.hidden.restore()
            return
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.target.of_layer(name).project(weight, self.norms.get(name))[0])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(own[name])

    def save(self, folder):
        """Write the state into a checkpoint folder."""
        save_state(self, folder)

    def load(self, folder):
        """Inverse of :meth:`save`; CheckpointError if the file is missing or does not fit the model."""
        load_state(self, folder)
