"""What happens to the weights in each stage of a recipe: the state machine inside the trainer.

It knows nothing of data or losses. The trainer calls it at fixed points of every optimizer step; its
whole state goes into one file of every checkpoint, so that a resumed run continues exactly.
"""

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
from compressor.pruning_method import NotPruning
from compressor.recipe_structure import recipe_structure
from compressor.removed_units import RemovedUnits
from compressor.sr_ste import SrSteState
from compressor.stage_checkpoint import load_state, save_state
from compressor.structures import Dense
from compressor.targets import target_layers
from compressor.weight_grid import IntegerGrid

NORM_ROWS = 256
"""Training rows on which the inputs of error-aware projections are measured."""


def _topk_arguments(state, stage):
    if isinstance(state.structure, HeadsRows):
        config = state.model.config
        groups = head_and_row_groups(state.targets, config.hidden_size // config.num_attention_heads)
    else:
        groups = block_groups(state.targets, state.structure.unit)
    return {"targets": state.targets, "groups": groups, "stage": stage}


METHODS = {
    "gradual": (GradualPruning, lambda state, stage: {
        "weights": state.weights, "structure": state.structure, "norms": state.norms}),
    "admm": (AdmmState, lambda state, stage: {
        "weights": state.weights, "structure": state.target, "rho": stage.rho, "init": stage.init,
        "norms": state.norms}),
    "group_lasso": (GroupLasso, lambda state, stage: {
        "weights": state.weights, "structure": state.structure, "strength": stage.strength}),
    "learned_topk": (LearnedTopK, _topk_arguments),
    "sr_ste": (SrSteState, lambda state, stage: {
        "weights": state.weights, "structure": state.structure, "decay": stage.decay, "norms": state.norms}),
}
"""Method of a stage, by the stage's name in recipes: its class, and what gives the arguments. Other stages
prune for good first."""


class StageState:
    """Structure, pruning method and activation scales of a model while a recipe runs.

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
    method : PruningMethod
        What the present stage works with; FixedMasks from the moment of the hard projection on.
    removed : RemovedUnits or None
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
        self.method = NotPruning(self.weights)
        self.map_pruning = self.scales = None
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
        return not isinstance(self.method, NotPruning)

    @property
    def other_weights(self):
        """Weights of the encoder's linear layers that the recipe does not prune: list."""
        return [target.module.weight for name, target in target_layers(self.model).items()
                if name not in self.weights]

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
        logs = {} if self.is_pruning else self.plan()
        if stage.method in METHODS:
            self.begin_method(stage)
            return logs
        if stage.method == "retrain" and stage.fit_rows:
            return logs | self.fit(stage.fit_rows, optimizer)
        return logs | self.freeze(optimizer)

    def plan(self):
        """Choose the structure that pruning will ask for; returns what is worth logging, as a dict."""
        if self.recipe.structure.score == "activation":
            self.norms = input_norms(self.model, self.targets, self.first_batches(NORM_ROWS))
        self.structure = self.planned_structure()
        return {f"budget_{key}": value for key, value in (self.budget_report or {}).items() if key != "unit"}

    def begin_method(self, stage):
        """Give the weights to the method of a stage; a second stage of ADMM goes on with Z and U."""
        if stage.method == "admm":
            self.on_grid = stage.values == "int8"
            if isinstance(self.method, AdmmState):
                self.method.structure = self.target
                self.method.rescale_dual(stage.rho)
                return
        method, arguments = METHODS[stage.method]
        self.method = method(**arguments(self, stage))

    def begin_maps(self, stage):
        """Prune attention maps if a stage wants it and they are not; returns what is worth logging."""
        if self.map_pruning is not None or not self.recipe.prunes_maps_in(stage):
            return {}
        maps = self.recipe.attention_maps
        self.map_pruning, kept = prune_maps(
            self.model, self.first_batches(maps.rows), size=maps.size, power=maps.power,
            weight_pool=getattr(self.structure, "pool", None))
        return {"map_patterns": len(self.map_pruning.patterns), "map_retained_weights": kept}

    def freeze(self, optimizer=None):
        """Prune the weights for good; does nothing if that has happened."""
        if isinstance(self.method, FixedMasks):
            return {}
        if isinstance(self.method, LearnedTopK):
            masks = self.method.final_masks()
            self.method, retained = FixedMasks.remove(self.method.hidden.parameters, masks)
        else:
            self.method, retained = FixedMasks.project(self.weights, self.target, self.norms)
        if optimizer is not None:
            self.method.clear_moments(optimizer)
        return {"frozen_retained_energy": retained}

    def fit(self, rows, optimizer=None):
        """Prune dense weights for good, to what the encoder puts out on training rows."""
        masks, error = fit_encoder(self.model, self.targets, self.structure, self.first_batches(rows),
                                   allowed=self.removed and self.removed.weight_mask)
        self.method = FixedMasks(self.weights, masks)
        if self.removed is not None:
            self.removed.apply()
        if optimizer is not None:
            self.method.clear_moments(optimizer)
        return {"fit_hidden_error": error}

    def planned_structure(self):
        """The structure that pruning will ask for; a pool built from today's weights has its final size."""
        structure, self.budget_report = recipe_structure(self.recipe, self.weights, given=self.given,
                                                         norms=self.norms, others=self.other_weights)
        return structure

    def before_forward(self, stage, done):
        """Prepare the weights of a step; ``done`` steps of the stage have run."""
        self.method.before_forward(stage, done)

    def before_clipping(self, stage):
        """Adjust complete gradients."""
        if self.removed is not None:
            self.removed.apply_to_gradients()
        self.method.before_clipping(stage)

    def after_optimizer_step(self, stage, relative_rate):
        """Adjust weights that the optimizer has just moved."""
        self.method.after_optimizer_step(stage, relative_rate)
        if self.removed is not None:
            self.removed.apply()

    def projected(self):
        """Within the context the model holds what would be saved; afterwards its own weights again."""
        return self.method.projected(self.target, self.norms)

    def save(self, folder):
        """Write the state into a checkpoint folder."""
        save_state(self, folder)

    def load(self, folder):
        """Inverse of :meth:`save`; CheckpointError if the file is missing or does not fit the model."""
        load_state(self, folder)
