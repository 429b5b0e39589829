"""The trainer: a ``transformers.Trainer`` that runs the stages of a recipe in one exact, resumable run."""

import math
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from compressor.activation_norms import input_norms
from compressor.admm import rate_budget_warning
from compressor.sampling import LengthGroupedSampler
from compressor.schedule import Schedule
from compressor.stages import STATE_FILE, CheckpointError, StageState

INTERVALS_WANTED = 10
"""ADMM intervals below which accuracy suffers (S1, section 4.3)."""

NORM_ROWS = 256
"""Training rows on which the inputs of error-aware projections are measured."""


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
        "seed": training.seed, "eval_strategy": "no", "save_strategy": "no", "save_total_limit": 2,
        "logging_strategy": "steps", "logging_steps": 25, "report_to": "none", "disable_tqdm": True,
        "dataloader_pin_memory": torch.accelerator.is_available(),
    } | changes
    return TrainingArguments(**values)


class CompressionTrainer(Trainer):
    """Runs a recipe. Takes what ``transformers.Trainer`` takes, and the recipe.

    Evaluation is always on the projected model, the one that will be saved; while the weights are
    still dense, their own score is reported as well, under keys that end in ``_dense_...``.

    Parameters
    ----------
    model : PreTrainedModel
        A BERT, RoBERTa or DistilBERT with a head.
    args : TrainingArguments
        See :func:`training_arguments`. ``max_steps`` is set from the recipe.
    recipe : Recipe
    given : structure, optional
        The structure that the model has already, for a recipe with ``structure: {kind: model}``.

    Attributes
    ----------
    stages : StageState
        The structure, dual variables and masks.
    schedule : Schedule
    warnings : list of str
        One line for everything about the recipe that is likely to fail.
    stop_requested : bool
        Set it to end after the current step, with a checkpoint.
    """

    # The BERT classifiers average their loss over a micro-batch; Trainer would take that for a loss
    # already divided by the accumulation steps, because their forward() accepts **kwargs.
    loss_is_scaled_for_ga = False

    def __init__(self, model, args, *, recipe, given=None, **kwargs):
        if args.fp16:
            raise ValueError("fp16 scales gradients, which the ADMM penalty would have to follow; use bf16")
        self.row_order = None
        super().__init__(model=model, args=args, **kwargs)
        self.recipe = recipe
        self.stages = StageState(self.model, recipe, given=given, measure_norms=self._measure_norms)
        self.steps_per_epoch = math.ceil(len(self.get_train_dataloader())
                                         / args.gradient_accumulation_steps)
        self.schedule = Schedule.of(recipe, steps_per_epoch=self.steps_per_epoch)
        args.max_steps = self.schedule.steps
        self.warnings = self._recipe_warnings()
        self.stop_requested = False
        self._resumed_from = None
        self._dense_evaluation = False
        self._penalty_norms = []
        self.add_callback(_StageCallback(self))

    @property
    def span(self):
        """The span of the step that runs next; at the end, the last one."""
        return self.schedule.span_at(self.state.global_step)

    def _recipe_warnings(self):
        found = []
        for span in self.schedule.spans:
            if span.stage.method != "admm":
                continue
            intervals = span.steps // span.stage.interval_steps(span.steps)
            if intervals < INTERVALS_WANTED:
                found.append(f"stage {span.stage.label}: {span.steps} steps hold {intervals} ADMM "
                             f"intervals; {INTERVALS_WANTED} or more are usual. Train longer or "
                             f"set interval: {max(1, span.steps // INTERVALS_WANTED)}")
            rates = [self.schedule.rate(step) for step in range(span.start, span.end)]
            warning = rate_budget_warning(self.stages.weights.values(), rates, span.stage)
            if warning:
                found.append(f"stage {span.stage.label}: {warning}")
        return found

    def _measure_norms(self):
        """Input norms on the first training rows, in their own order: no random number is drawn."""
        rows = min(NORM_ROWS, len(self.train_dataset))
        batch = self.args.per_device_eval_batch_size
        batches = (self.data_collator([self.train_dataset[row] for row in range(start, min(start + batch,
                                                                                          rows))])
                   for start in range(0, rows, batch))
        return input_norms(self.model, self.stages.targets, batches)

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Run the recipe; ``resume_from_checkpoint`` is a checkpoint folder, or True for the latest.

        Raises
        ------
        CheckpointError
            If there is nothing to resume, or it does not fit.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = latest_checkpoint(self.args.output_dir)
        self._resumed_from = resume_from_checkpoint
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
        if self.accelerator.sync_gradients:
            self._penalty_norms.append(self.stages.before_clipping(self.span.stage))
        return loss

    def close_interval(self):
        """Update Z and U and log how far ADMM is."""
        logs = self.stages.admm.update()
        logs["penalty_gradient_norm"] = sum(self._penalty_norms) / max(1, len(self._penalty_norms))
        self._penalty_norms.clear()
        self.log({f"admm_{name}": value for name, value in logs.items()})

    def close_window(self):
        """Log how much the masks of SR-STE move."""
        self.log({f"sr_ste_{name}": value for name, value in self.stages.sr_ste.report().items()})

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Metrics of the projected model, and of the dense one while there is one."""
        if isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        metrics = {}
        if self.recipe.prunes and self.stages.masks is None and self.stages.sr_ste is None:
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
        """Prune for good, if no stage has; afterwards the model is what should be saved."""
        if self.recipe.prunes:
            self.stages.freeze()
            self.stages.masks.apply()

    def final_metrics(self):
        """The last value of every evaluation metric of this run, resumed parts included."""
        metrics = {}
        for record in self.state.log_history:
            metrics |= {key: value for key, value in record.items()
                        if key.startswith("eval_") and not key.endswith(("_runtime", "_per_second"))}
        return metrics


class _StageCallback(TrainerCallback):
    """Ties the stages to the trainer's steps."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if self.trainer._resumed_from is not None:
            self.trainer.stages.load(self.trainer._resumed_from)

    def on_epoch_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        if trainer.row_order is not None:
            trainer.row_order.epoch = state.global_step // trainer.steps_per_epoch

    def on_step_begin(self, args, state, control, **kwargs):
        trainer = self.trainer
        logs = trainer.stages.enter(trainer.span.stage, trainer.optimizer)
        if logs:
            trainer.log(logs)
        trainer.stages.before_forward(trainer.span.stage, state.global_step - trainer.span.start)

    def on_optimizer_step(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer.stages.after_optimizer_step(trainer.span.stage,
                                            trainer.schedule.relative_rate(state.global_step))

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        step = state.global_step
        span = trainer.schedule.span_at(step - 1)
        done = step - span.start
        if span.stage.method == "admm" and done % span.stage.interval_steps(span.steps) == 0:
            trainer.close_interval()
        if span.stage.method == "sr_ste" and (done % args.logging_steps == 0 or step == span.end):
            trainer.close_window()
        training = trainer.recipe.training
        control.should_evaluate |= (trainer.eval_dataset is not None
                                    and trainer.schedule.is_due(step, training.evaluations))
        control.should_save |= trainer.schedule.is_due(step, training.saves)
        if trainer.stop_requested:
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        if args.should_save:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self.trainer.stages.save(folder)


def latest_checkpoint(folder):
    """The newest complete checkpoint folder; CheckpointError if there is none."""
    complete = [path for path in Path(folder).glob("checkpoint-*")
                if (path / STATE_FILE).is_file() and path.name.split("-")[1].isdigit()]
    if not complete:
        raise CheckpointError(f"{folder}: no complete checkpoint to resume from")
    return str(max(complete, key=lambda path: int(path.name.split("-")[1])))
