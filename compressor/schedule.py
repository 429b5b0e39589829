"""When each stage of a recipe runs, in optimizer steps, and the learning rate of every step."""

from dataclasses import dataclass

from compressor.recipe_stages import Stage
from compressor.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class StageSpan:
    """A stage and its steps, ``start`` to before ``end``; an epoch has ``epoch_steps`` of them."""

    stage: Stage
    start: int
    end: int
    epoch_steps: int

    @property
    def steps(self):
        """Number of optimizer steps."""
        return self.end - self.start


@dataclass(frozen=True)
class Schedule:
    """The stages of a recipe laid out in optimizer steps.

    >>> recipe = Recipe.from_dict({"schema_version": 1, "stages": [
    ...     {"method": "dense", "epochs": 1}, {"method": "retrain", "epochs": 0.5}]})
    >>> schedule = Schedule.of(recipe, steps_per_epoch=10)
    >>> [(span.stage.label, span.start, span.end) for span in schedule.spans], schedule.steps
    ([('dense', 0, 10), ('retrain', 10, 15)], 15)
    """

    recipe: Recipe
    spans: tuple[StageSpan, ...]

    @classmethod
    def of(cls, recipe, *, steps_per_epoch):
        """Lay out ``recipe``; every stage gets at least one step."""
        spans, start = [], 0
        for stage in recipe.stages:
            end = start + max(1, round(stage.epochs * steps_per_epoch))
            spans.append(StageSpan(stage=stage, start=start, end=end, epoch_steps=steps_per_epoch))
            start = end
        return cls(recipe, tuple(spans))

    @property
    def steps(self):
        """Optimizer steps of the whole recipe."""
        return self.spans[-1].end

    def span_at(self, step):
        """The span that holds ``step``; after the end, the last one."""
        return next((span for span in self.spans if step < span.end), self.spans[-1])

    def relative_rate(self, step):
        """Learning rate of a step over its stage's peak, 0 to 1: linear warm-up, then linear decay.

        The first step of a stage is above zero, the last one too: no step is wasted.
        """
        span = self.span_at(step)
        done = step - span.start
        warmup = int(self.recipe.training.warmup * span.steps)
        if done < warmup:
            return (done + 1) / (warmup + 1)
        if span.stage.method == "reconstruct":  # the last layer is worth as much as the first
            return 1.0
        return max(0.0, (span.steps - done) / (span.steps - warmup))

    def rate(self, step):
        """Learning rate of a step."""
        stage = self.span_at(step).stage
        peak = stage.learning_rate or self.recipe.training.learning_rate
        return peak * self.relative_rate(step)

    def is_due(self, step, times):
        """Whether something done ``times`` times per stage, evenly, falls due after ``step`` steps.

        The last time is the stage's end.
        """
        span = self.span_at(step - 1)
        done = step - span.start
        return step > 0 and done * times // span.steps > (done - 1) * times // span.steps
