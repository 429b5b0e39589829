"""What in a recipe is likely to fail in the steps that it has, said before it runs."""

from compressor.admm import rate_budget_warning
from compressor.group_lasso import reweight_warning
from compressor.learned_topk import threshold_warning

INTERVALS_WANTED = 10
"""ADMM intervals below which accuracy suffers (S1, section 4.3)."""

OF_STAGE = {"group_lasso": reweight_warning, "learned_topk": threshold_warning}
"""By a stage's method: a function of the stage and the relative learning rate of each of its steps, which
returns one line or None."""


def recipe_warnings(schedule, weights):
    """One line for every stage that is unlikely to do what it is for.

    Parameters
    ----------
    schedule : Schedule
    weights : dict of str to Parameter
        The weights that the recipe prunes, as they are before the first step.

    Returns
    -------
    list of str
    """
    found = []
    for span in schedule.spans:
        if span.stage.method in OF_STAGE:
            rates = [schedule.relative_rate(step) for step in range(span.start, span.end)]
            found += _named(span.stage.label, OF_STAGE[span.stage.method](span.stage, rates))
    return found + _admm_warnings(schedule, weights)


def _admm_warnings(schedule, weights):
    """Stages of ADMM count as one, with another rho in each; the last must close the gap."""
    spans = [span for span in schedule.spans if span.stage.method == "admm"]
    if not spans:
        return []
    last = spans[-1]
    steps = sum(span.steps for span in spans)
    intervals = sum(span.steps // span.stage.interval_steps(span.steps) for span in spans)
    few = None
    if intervals < INTERVALS_WANTED:
        few = (f"{steps} steps hold {intervals} ADMM intervals; {INTERVALS_WANTED} or more are usual. "
               f"Train longer or set interval: {max(1, steps // INTERVALS_WANTED)}")
    rates = [schedule.rate(step) for step in range(last.start, last.end)]
    return (_named(" and ".join(span.stage.label for span in spans), few)
            + _named(last.stage.label, rate_budget_warning(weights.values(), rates, last.stage)))


def _named(label, warning):
    return [] if warning is None else [f"stage {label}: {warning}"]
