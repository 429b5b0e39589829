"""What a stage does to the weights: hooks, called at fixed points of every optimizer step."""

from contextlib import contextmanager

import torch


class PruningMethod:
    """A way to prune. Each hook does nothing unless a method needs it.

    In a step the hooks run in this order: ``before_forward``, ``before_clipping``, ``after_optimizer_step``,
    ``end_step``. A stage's values come as its section of the recipe, ``stage``.

    Parameters
    ----------
    weights : dict of str to Parameter, shape (rows, K) each

    Attributes
    ----------
    name : str
        Of the state in checkpoints, and what the names of logged values begin with.
    has_dense_model : bool
        Whether the weights between two steps are a dense model, with a score of its own.
    bytes_per_weight : int
        Memory that it takes for each of the weights, beside the weights themselves.
    """

    name = ""
    has_dense_model = True
    bytes_per_weight = 0

    def __init__(self, weights):
        self.weights = weights

    def before_forward(self, stage, done):
        """Prepare the weights of a step; ``done`` steps of the stage have run."""

    def before_clipping(self, stage):
        """Adjust complete gradients."""

    def after_optimizer_step(self, stage, relative_rate):
        """Adjust weights that the optimizer has just moved, at a share ``relative_rate`` of its peak rate."""

    def end_step(self, span, done, optimizer):
        """Do what falls due after ``done`` steps of a StageSpan; returns what is worth logging, a dict."""
        return {}

    def report(self):
        """What happened since the last report: dict of str to float."""
        return {}

    @contextmanager
    def projected(self, target, norms):
        """Within the context the model holds what would be saved: here the weights as they are.

        ``target`` is the structure to project to, ``norms`` are the input norms of error-aware projections.
        """
        yield

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return {}

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""


class NotPruning(PruningMethod):
    """Before the first stage that prunes."""

    name = "nothing"


class ProjectedMethod(PruningMethod):
    """A method that leaves more in the weights than their projection, which is what would be saved."""

    @contextmanager
    def projected(self, target, norms):
        """Within the context the model holds the weights' projection; afterwards the weights again."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(target.of_layer(name).project(weight, norms.get(name))[0])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(own[name])
