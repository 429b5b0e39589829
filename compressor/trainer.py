"""The trainer: a ``transformers.Trainer`` that runs the stages of a recipe in one exact, resumable run."""

import math
from pathlib import Path

import torch
from transformers import TrainingArguments

from compressor.distilling_trainer import DistillingTrainer
from compressor.encoder_quantization import calibrate_encoder
from compressor.quantized_model import compute_in_float, train_in_integers
from compressor.recipe_warnings import recipe_warnings
from compressor.reload import architecture_of
from compressor.run_guards import check_finite, check_weights, enough_memory, whole_or_gone
from compressor.sampling import LengthGroupedSampler
from compressor.schedule import Schedule
from compressor.stage_callback import StageCallback, latest_checkpoint
from compressor.stages import StageState


def training_arguments(recipe, output_dir, **changes):
    """The TrainingArguments of a recipe; ``changes`` override them (``use_cpu``, ``bf16``, ...).

    Evaluations and checkpoints are timed by the stages, not by these arguments.
    """
    training = recipe.training
    values = {
        "output_dir": str(output_dir), "learning_rate": training.learning_rate,
        "per_device_train_batch_size": training.batch, "per_device_eval_batch_size": 64,
        "gradient_accumulation_steps": training.gradient_accumulation,
        "weight_decay": training.weight_decay, "max_grad_norm": training.max_grad_norm,
        "bf16": training.precision == "bfloat16", "use_cpu": not torch.accelerator.is_available(),
        "seed": training.seed, "eval_strategy": "no", "save_strategy": "no", "save_total_limit": 2,
        "logging_strategy": "steps", "logging_steps": 25, "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": torch.accelerator.is_available(),
    } | changes
    return TrainingArguments(**values)


class CompressionTrainer(DistillingTrainer):
    """Runs a recipe. Takes what ``transformers.Trainer`` takes, and the recipe.

    Evaluation is always on the projected model, the one that will be saved; while the weights are
    still dense, their own score is reported as well, under keys that end in ``_dense_...``. In a quantize
    stage it is on the integers that the model will be exported with.

    Parameters
    ----------
    model : PreTrainedModel
        A BERT, RoBERTa or DistilBERT with a head.
    args : TrainingArguments
        See :func:`training_arguments`. ``max_steps`` is set from the recipe.
    recipe : Recipe
    given : structure, optional
        The structure that the model has already, for a recipe with ``structure: {kind: model}``.
    given_maps : IntegerMapPruning, optional
        And how its attention maps are pruned.
    given_removed : bool
        Whether heads, rows or blocks have been removed from it.

    Attributes
    ----------
    stages : StageState
        The structure, dual variables and masks.
    schedule : Schedule
    warnings : list of str
        One line for everything about the recipe that is likely to fail.
    stop_requested : bool
        Set it, in any process, to end after the current step, with a checkpoint.
    """

    def __init__(self, model, args, *, recipe, given=None, given_maps=None, given_removed=False, **kwargs):
        if args.fp16:
            raise ValueError("fp16 scales gradients, which the ADMM penalty would have to follow; use bf16")
        self.row_order = None
        super().__init__(model=model, args=args, distillation=recipe.distillation, **kwargs)
        self.recipe = recipe
        self.stages = StageState(self.model, recipe, given=given, given_maps=given_maps,
                                 given_removed=given_removed, first_batches=self.first_batches)
        self.teacher_maps = self.stages.map_pruning
        self.steps_per_epoch = math.ceil(len(self.get_train_dataloader())
                                         / args.gradient_accumulation_steps)
        self.schedule = Schedule.of(recipe, steps_per_epoch=self.steps_per_epoch)
        args.max_steps = self.schedule.steps
        self.warnings = recipe_warnings(self.schedule, self.stages.weights)
        self.stop_requested = False
        self._resumed_from = None
        self._own_dropout = {}
        self._dense_evaluation = False
        self._in_integers = False
        self.add_callback(StageCallback(self))

    @property
    def span(self):
        """The span of the step that runs next; at the end, the last one."""
        return self.schedule.span_at(self.state.global_step)

    def must_stop(self):
        """Whether any process was asked to stop; all of them hear so after the same step."""
        if self.args.world_size == 1:
            return self.stop_requested
        asked = torch.tensor(float(self.stop_requested), device=self.args.device)
        return bool(self.accelerator.reduce(asked, "sum"))

    def first_batches(self, rows):
        """Model inputs of the first training rows, the shortest first, so that little is padded.

        No random number is drawn.
        """
        order = range(min(rows, len(self.train_dataset)))
        if hasattr(self.train_dataset, "lengths"):
            order = sorted(order, key=self.train_dataset.lengths.__getitem__)
        batch = self.args.per_device_eval_batch_size
        for start in range(0, len(order), batch):
            yield self.data_collator([self.train_dataset[row] for row in order[start:start + batch]])

    def restore(self, checkpoint):
        """Load the stages' state from a checkpoint, and the teacher if it has been kept."""
        self.stages.load(checkpoint)
        began = self.stages.is_pruning or self.stages.scales is not None
        if began:
            self.bring_teacher_back()

    @property
    def is_distilling(self):
        """Whether the stage that runs next learns from the teacher."""
        return self.distiller is not None and self.span.stage.method != "dense"

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Run the recipe; ``resume_from_checkpoint`` is a checkpoint folder, or True for the latest.

        Raises
        ------
        CheckpointError
            If there is nothing to resume, or it does not fit.
        TrainingError
            If the loss or a weight is no longer finite, memory is full, or a checkpoint cannot be written.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = latest_checkpoint(self.args.output_dir)
        self._resumed_from = resume_from_checkpoint
        with enough_memory(self.recipe.training, checkpoints=self.args.output_dir):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        dataset = train_dataset or self.train_dataset
        if not hasattr(dataset, "lengths"):
            return super()._get_train_sampler(train_dataset)
        self.row_order = LengthGroupedSampler(dataset.lengths, batch=self.args.train_batch_size,
                                              seed=self.args.seed)
        return self.row_order

    def create_scheduler(self, num_training_steps, optimizer=None):
        """Each stage's own warm-up and decay."""
        if self.lr_scheduler is None:
            base = self.args.learning_rate
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: self.schedule.rate(step) / base)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model, inputs, num_items_in_batch=None):
        """One micro-batch; after the last of a step, the stage adjusts the summed gradients."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._require_finite("the loss", loss)
        if self.accelerator.sync_gradients:
            if self.span.stage.method == "reconstruct":
                self._drop_other_gradients()
            self.stages.before_clipping(self.span.stage)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        self._require_finite("the gradient's norm", torch.as_tensor(norm))
        return norm

    def _require_finite(self, what, value):
        check_finite(what, value, step=self.state.global_step, stage=self.span.stage.label,
                     checkpoints=self.args.output_dir)

    def _save_checkpoint(self, model, trial):
        step, folder = self.state.global_step, Path(self.args.output_dir)
        check_weights(self.model, step=step, checkpoints=folder)
        with whole_or_gone(folder / f"checkpoint-{step}"):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each has written the state of its random numbers
            if self.args.should_save:
                self.stages.save(folder / f"checkpoint-{step}")  # last: it marks the whole

    @property
    def layer_to_fit(self):
        """Encoder layer that the next step of a stage ``reconstruct`` fits; None in other stages."""
        if self.span.stage.method != "reconstruct":
            return None
        layers = self.model.config.num_hidden_layers
        return (self.state.global_step - self.span.start) * layers // self.span.steps

    def _drop_other_gradients(self):
        model = self.accelerator.unwrap_model(self.model)
        layers = model.base_model.get_submodule(architecture_of(model).layers)
        own = {id(parameter) for parameter in layers[self.layer_to_fit].parameters()}
        for parameter in model.parameters():
            if id(parameter) not in own:
                parameter.grad = None

    def set_dropout(self, stage):
        """Give the model's modules the dropout of a stage; its config, and so its files, keep their own."""
        if not self._own_dropout:
            self._own_dropout = {module: module.p for module in self.model.modules()
                                 if isinstance(module, torch.nn.Dropout)}
        share = self.recipe.training.dropout if stage.dropout is None else stage.dropout
        for module, own in self._own_dropout.items():
            module.p = own if share is None else share

    def enter_integers(self, stage):
        """Let the model compute in integers from now on, on scales that are calibrated once."""
        if self._in_integers:
            return
        if self.stages.scales is None:
            batches = map(self._prepare_inputs, self.first_batches(stage.calibration_rows))
            self.stages.scales = calibrate_encoder(self.model, batches)
        train_in_integers(self.model, self.stages.scales, self.stages.map_pruning)
        self._in_integers = True

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Metrics of the projected model, and of the dense one while there is one."""
        if isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        metrics = {}
        if self.recipe.prunes and self.stages.method.has_dense_model:
            self._dense_evaluation = True
            try:
                metrics |= super().evaluate(eval_dataset, ignore_keys, f"{metric_key_prefix}_dense")
            finally:
                self._dense_evaluation = False
        if not self.recipe.prunes or self.stages.is_pruning:
            metrics |= super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return metrics

    def evaluation_loop(self, *args, **kwargs):
        """Trainer's loop, with projected weights."""
        if self._dense_evaluation:
            return super().evaluation_loop(*args, **kwargs)
        with self.stages.projected():
            return super().evaluation_loop(*args, **kwargs)

    def finalize(self):
        """Prune for good, if no stage has; afterwards the model, in float, is what should be saved."""
        compute_in_float(self.model)
        self._in_integers = False
        if self.recipe.prunes:
            self.stages.freeze()

    def final_metrics(self):
        """The last value of every evaluation metric of this run, resumed parts included."""
        metrics = {}
        for record in self.state.log_history:
            metrics |= {key: value for key, value in record.items()
                        if key.startswith("eval_") and not key.endswith(("_runtime", "_per_second"))}
        return metrics
