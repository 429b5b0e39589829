"""A ``transformers.Trainer`` whose loss may be against a teacher, with labels or without."""

import copy
from pathlib import Path

import torch
from transformers import Trainer

from compressor.attention_maps import set_map_pruning
from compressor.distillation import Distiller, has_labels, load_teacher
from compressor.stage_checkpoint import CheckpointError

DENSE_TEACHER = "dense"
"""Name of the teacher that is the model itself, before pruning."""

GIVEN_TEACHER = "model"
"""Name of the teacher that is the model as it was given, pruned or not."""

FUSED_ATTENTION = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Attention implementations that return no attention maps, and are slow in bfloat16 on a CPU."""


class DistillingTrainer(Trainer):
    """Takes what ``transformers.Trainer`` takes, and a recipe's section ``distillation``, or None.

    Inputs without labels are evaluated by the loss against the teacher and by its parts.

    Attributes
    ----------
    distiller : Distiller or None
        There from the start for the teacher in a directory; for the model itself from
        :meth:`keep_teacher` on.
    teacher_maps : IntegerMapPruning or None
        How the attention maps of the model itself are pruned when it becomes the teacher.
    """

    # The BERT classifiers average their loss over a micro-batch; Trainer would take that for a loss
    # already divided by the accumulation steps, because their forward() accepts **kwargs.
    loss_is_scaled_for_ga = False

    def __init__(self, model, args, *, distillation=None, **kwargs):
        super().__init__(model=model, args=args, **kwargs)
        self.distillation = distillation
        self.distiller = self.teacher_maps = None
        self._choose_attention(self.model)
        if distillation is not None and distillation.teacher not in (DENSE_TEACHER, GIVEN_TEACHER):
            self._begin(load_teacher(distillation.teacher, self.model))

    def _choose_attention(self, model):
        """No fused kernel where maps are needed or it is slow; the model's files do not name it."""
        needs_maps = self.distillation is not None and self.distillation.attention
        is_slow = self.args.bf16 and self.args.device.type == "cpu"
        if (needs_maps or is_slow) and model.config._attn_implementation in FUSED_ATTENTION:
            model.set_attn_implementation("eager")

    def _begin(self, teacher):
        self._choose_attention(teacher)
        self.distiller = Distiller(teacher, self.model, self.distillation,
                                   autocast=self.accelerator.autocast)

    @property
    def is_distilling(self):
        """Whether the next step learns from the teacher."""
        return self.distiller is not None

    @property
    def layer_to_fit(self):
        """Encoder layer whose output alone the next step fits to the teacher's; None for all."""
        return None

    @property
    def _teacher_folder(self):
        return Path(self.args.output_dir) / "teacher"

    def keep_teacher(self):
        """Make the model as it is the teacher, unless there is one; saved once, beside the checkpoints."""
        if self.distillation is None or self.distiller is not None:
            return
        if self.args.should_save:
            self.model.save_pretrained(self._teacher_folder)
        self._begin(copy.deepcopy(self.accelerator.unwrap_model(self.model)))

    def bring_teacher_back(self):
        """In a resumed run, load what :meth:`keep_teacher` saved; CheckpointError if it is gone."""
        if self.distillation is None or self.distiller is not None:
            return
        try:
            teacher = load_teacher(self._teacher_folder, self.model)
        except ValueError as error:
            raise CheckpointError(f"{self._teacher_folder}: the teacher is lost: {error}") from error
        set_map_pruning(teacher, self.teacher_maps)
        self._begin(teacher)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The task's loss; while distilling, the one against the teacher. Labels are evaluated plainly."""
        if not self.is_distilling or (not self.model.training and has_labels(inputs)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, **self.distiller.wanted)
        loss = self.distiller.loss(outputs, inputs, layer=self.layer_to_fit if model.training else None)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        """Trainer's log; beside a mean loss stand its parts."""
        if "loss" in logs and self.distiller is not None:
            logs = logs | {f"distillation_{name}": value for name, value in self.distiller.report().items()}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        """Trainer's loop; without a task's metrics, those of the distance to the teacher."""
        if self.distiller is None or self.compute_metrics is not None:
            return super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        with self.distiller.own_window():
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
            output.metrics.update({f"{metric_key_prefix}_{name}": value
                                   for name, value in self.distiller.report().items()})
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Trainer's step; without labels, the loss against the teacher alone."""
        if has_labels(inputs) or self.distiller is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None
