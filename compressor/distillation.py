"""Distillation: the pruned model learns from a dense one, by logits, hidden states and attention maps.

The loss of S3 (MLPruning, section 3.4), averaged over real tokens only::

    labels * task loss + logits * T^2 KL(teacher / T || student / T)
        + hidden * sum over layers MSE(hidden states) + attention * sum over layers MSE(attention maps)
"""

import inspect
from contextlib import contextmanager, nullcontext

import torch
from torch.nn import functional
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from compressor.label_order import label_names, reorder_labels
from compressor.recipes import RecipeError


def load_teacher(path, student):
    """The dense model in a directory, as a teacher for ``student``; with a head if the student has one.

    Labels that it has in another order are put into the student's.

    Raises
    ------
    RecipeError
        If there is no model, or its head was never trained.
    """
    if student.base_model is student:
        kind = AutoModel
    else:
        kind = AutoModelForQuestionAnswering if has_spans(student) else AutoModelForSequenceClassification
    try:
        teacher, found = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"distillation.teacher: {path}: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise RecipeError(f"distillation.teacher: {path}: no trained {missing[0]}; give a model that was "
                          "fine-tuned on the task")
    if kind is AutoModelForSequenceClassification:
        reorder_labels(teacher, label_names(teacher.config), label_names(student.config))
    return teacher


LABELS = ("labels", "start_positions", "end_positions")
"""Inputs that a model computes its own loss from: those of a classifier, and of a model for spans."""


def has_labels(inputs):
    """Whether a model given ``inputs`` computes its own loss."""
    return any(name in inputs for name in LABELS)


def has_spans(model):
    """Whether a model answers with spans of a text: its head scores every token as start and as end."""
    return hasattr(model, "qa_outputs")


class Distiller:
    """A teacher and the loss against it.

    Parameters
    ----------
    teacher : PreTrainedModel
        Put into evaluation mode, on the student's device; its parameters are never trained.
    student : PreTrainedModel
    section : compressor.recipe_sections.Distillation
    autocast : function without arguments
        Makes the context in which the teacher computes: the student's.

    Attributes
    ----------
    wanted : dict
        Arguments that make a model return what the loss needs.

    Raises
    ------
    RecipeError
        If a part of the loss has nothing to compare: other sizes, or layers that do not divide.
    """

    def __init__(self, teacher, student, section, *, autocast=nullcontext):
        _check_fit(teacher.config, student.config, section)
        self.section, self.autocast = section, autocast
        self.teacher = teacher.to(student.device).eval().requires_grad_(False)
        self.wanted = {"output_hidden_states": section.hidden > 0,
                       "output_attentions": section.attention > 0}
        self._layers = student.config.num_hidden_layers
        self._stride = teacher.config.num_hidden_layers // self._layers
        self._accepts = set(inspect.signature(teacher.forward).parameters)
        self._sums, self._count = {}, 0

    def loss(self, outputs, inputs, layer=None):
        """The weighted sum of all parts, a scalar tensor.

        Parameters
        ----------
        outputs : ModelOutput
            Of the student, called with ``inputs`` and :attr:`wanted`.
        inputs : dict of str to tensor
            ``attention_mask`` of shape (B, S), 1 at real tokens; labels where the task loss counts.
        layer : int, optional
            Of all parts, only the distance of this encoder layer's output.
        """
        section, mask = self.section, inputs["attention_mask"].bool()
        with torch.no_grad(), self.autocast():
            target = self.teacher(**{name: value for name, value in inputs.items()
                                     if name in self._accepts and name not in LABELS}, **self.wanted)
        parts = {}
        if layer is not None:
            own, wanted = list(self._pairs(outputs.hidden_states, target.hidden_states))[layer + 1]
            return section.hidden * hidden_loss(own, wanted, mask)
        if section.labels and has_labels(inputs):
            parts["labels"] = outputs.loss
        if section.logits:
            parts["logits"] = sum(logits_loss(own, wanted, section.temperature) for own, wanted in zip(
                _logits(outputs, mask), _logits(target, mask), strict=True))
        if section.hidden:
            pairs = self._pairs(outputs.hidden_states, target.hidden_states)
            parts["hidden"] = sum(hidden_loss(own, wanted, mask) for own, wanted in pairs)
            self._add_error(outputs.hidden_states[-1], target.hidden_states[-1], mask)
        if section.attention:
            pairs = self._pairs(outputs.attentions, target.attentions)
            parts["attention"] = sum(attention_loss(own, wanted, mask) for own, wanted in pairs)
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        self._count += 1
        return sum(getattr(section, name) * value for name, value in parts.items())

    def _pairs(self, own, wanted):
        """The student's layers, each with the last teacher layer of its share; embeddings pair up too."""
        embeddings = len(own) - self._layers  # 1 for hidden states, 0 for attention maps
        start = embeddings + self._stride - 1
        return zip(own, (*wanted[:embeddings], *wanted[start::self._stride]), strict=True)

    @torch.no_grad()
    def _add_error(self, own, wanted, mask):
        for name, value in (("error", own - wanted), ("size", wanted)):
            self._sums[name] = self._sums.get(name, 0.0) + value[mask].float().square().sum()

    @contextmanager
    def own_window(self):
        """Within the context :meth:`report` knows of what happens there alone, and afterwards of the rest."""
        kept = self._sums, self._count
        self._sums, self._count = {}, 0
        try:
            yield
        finally:
            self._sums, self._count = kept

    def report(self):
        """Means since the last report, by part; ``hidden_error`` is the relative error of the last layer.

        Returns
        -------
        dict of str to float
        """
        sums = {name: float(value) for name, value in self._sums.items()}
        error, size = sums.pop("error", None), sums.pop("size", None)
        found = {name: value / self._count for name, value in sums.items()}
        if size:
            found["hidden_error"] = (error / size) ** 0.5
        self._sums, self._count = {}, 0
        return found


def logits_loss(student, teacher, temperature):
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, mean over rows; MSE for one output.

    Hinton et al., arXiv 1503.02531, section 2.
    """
    if student.shape[-1] == 1:
        return functional.mse_loss(student.float(), teacher.float())
    return temperature ** 2 * functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=-1),
        functional.log_softmax(teacher.float() / temperature, dim=-1),
        reduction="batchmean", log_target=True)


def _logits(outputs, mask):
    """The logits that a model's outputs have: of the classes, or of the first and of the last real token."""
    if "logits" in outputs:
        return [outputs.logits]
    never = torch.finfo(torch.float32).min / 4
    return [logits.float().masked_fill(~mask, never) for logits in (outputs.start_logits, outputs.end_logits)]


def hidden_loss(student, teacher, mask):
    """Mean square of the difference, shape (B, S, H), over the real tokens and all channels."""
    squares = (student.float() - teacher.float()).square() * mask.unsqueeze(-1)
    return squares.sum() / (mask.sum() * student.shape[-1])


def attention_loss(student, teacher, mask):
    """Mean square of the difference, shape (B, A, S, S), over heads and pairs of real tokens."""
    pairs = (mask[:, :, None] & mask[:, None, :]).unsqueeze(1)
    squares = (student.float() - teacher.float()).square() * pairs
    return squares.sum() / (pairs.sum() * student.shape[1])


def _check_fit(teacher, student, section):
    for name, needed in (("vocab_size", True), ("hidden_size", section.hidden),
                         ("num_attention_heads", section.attention), ("num_labels", section.logits)):
        own, other = getattr(student, name), getattr(teacher, name)
        if needed and own != other:
            raise RecipeError(f"distillation: the teacher has {name} {other}, the student {own}; use a "
                              f"teacher that fits{_part_to_drop(name)}")
    layers, teacher_layers = student.num_hidden_layers, teacher.num_hidden_layers
    if (section.hidden or section.attention) and teacher_layers % layers:
        raise RecipeError(f"distillation: the teacher's {teacher_layers} layers do not divide among the "
                          f"student's {layers}; set hidden: 0 and attention: 0, or use another teacher")


def _part_to_drop(name):
    part = {"hidden_size": "hidden", "num_attention_heads": "attention", "num_labels": "logits"}.get(name)
    return f", or set {part}: 0" if part else ""
