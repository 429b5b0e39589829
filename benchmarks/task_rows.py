"""The rows of the table on real tasks: which recipe each runs, and what it starts and learns from."""

from dataclasses import dataclass, field
from pathlib import Path

from compressor.recipes import Recipe, changed_recipe

RECIPE_DIR = Path(__file__).parent / "recipes"

PRETRAINED = "pretrained"
TEXT = "text"

EPOCH_SHARE = {"sst2": 0.2}
"""Share of every recipe's epochs that a large task runs; 1 for the others."""

TASK_CHANGES = {"mrpc": {"learned_topk": {"score_rate": 0.04}},
                "sst2": {"group_lasso": {"strength": 2e-5, "reweight_epochs": 0.4}}}
"""Other values of a method's stages, by task. MRPC has so few steps that thresholds do not fall far enough at
the recipes' own rate; SST-2 so many that Lasso at the recipe's own strength ruins the model, and so few
epochs that it is never reweighted."""

ARRAY = {"rows": 4, "lanes": 8, "tokens": 128}
"""What every row's cycles are counted for: 256 multipliers, the recipes' longest sequences."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Parameters
    ----------
    name, title : str
    recipe : str
        File in :data:`RECIPE_DIR`, without its ending.
    changes : dict of str to str
        Other values of the recipe, see :func:`compressor.recipes.changed_recipe`.
    start : str
        Row whose model it starts from, of the same task and seed; or the pretrained model.
    teacher : str, optional
        Row whose model it learns from, if that is not the start.
    on_text : bool
        Runs once, on plain text, for every task and seed.
    shown : bool
        False for rows that others only start from.
    """

    name: str
    title: str
    recipe: str
    changes: dict = field(default_factory=dict)
    start: str = PRETRAINED
    teacher: str | None = None
    on_text: bool = False
    shown: bool = True

    def make_recipe(self, *, task, seed, epoch_share, precision, teacher=None):
        """The recipe of one run; ``teacher`` is the directory of the teacher's model."""
        recipe = Recipe.from_yaml(RECIPE_DIR / f"{self.recipe}.yaml")
        changes = {"training.seed": str(seed), "training.precision": precision} | self.changes
        for number, stage in enumerate(recipe.stages):
            changes[f"stages.{number}.epochs"] = f"{stage.epochs * epoch_share:g}"
            for key, value in TASK_CHANGES.get(task, {}).get(stage.method, {}).items():
                changes[f"stages.{number}.{key}"] = str(value)
        if teacher is not None:
            changes["distillation.teacher"] = f"'{teacher}'"
        return changed_recipe(recipe, changes)


def _pool_row(size, balance):
    kind = {"row": "row-balanced", "none": "free"}[balance]
    return Row(name=f"pattern-admm-{size}-{'row' if balance == 'row' else 'free'}",
               title=f"pattern, ADMM, {size} {kind} patterns", recipe="pattern-admm",
               changes={"pool.size": str(size), "pool.balance": balance})


ROWS = {row.name: row for row in (
    Row(name="dense", title="dense", recipe="dense"),
    Row(name="unstructured-admm", title="unstructured, ADMM", recipe="unstructured-admm"),
    Row(name="2to4-asp", title="2:4, one-shot (ASP)", recipe="2to4-asp"),
    Row(name="2to4-admm", title="2:4, ADMM", recipe="2to4-admm"),
    Row(name="pattern-oneshot", title="pattern, one-shot, 32 row-balanced patterns",
        recipe="pattern-oneshot"),
    *(_pool_row(size, balance) for balance in ("row", "none") for size in (16, 32, 64)),
    Row(name="pattern-distilled", title="pattern, ADMM, distilled", recipe="pattern-distilled",
        start="dense"),
    Row(name="pattern-fitted", title="pattern, fitted to outputs", recipe="pattern-fitted"),
    Row(name="fitted-distilled", title="pattern, fitted to outputs, distilled", recipe="fitted-distilled",
        start="dense"),
    Row(name="fitted-distilled-2to4", title="2:4, fitted to outputs, distilled", recipe="fitted-distilled",
        start="dense", changes={"structure": "{kind: nm}", "pool": "{}"}),
    Row(name="recover-pattern", title="pattern, recovered on text", recipe="recover", on_text=True,
        shown=False),
    Row(name="recovered", title="pattern, recovered", recipe="recovered", start="recover-pattern"),
    Row(name="recovered-distilled", title="pattern, recovered, distilled", recipe="recovered-distilled",
        start="recover-pattern", teacher="dense"),
    Row(name="recover-2to4", title="2:4, recovered on text", recipe="recover", on_text=True, shown=False,
        changes={"structure": "{kind: nm}", "pool": "{}"}),
    Row(name="recovered-2to4-distilled", title="2:4, recovered, distilled", recipe="recovered-distilled",
        start="recover-2to4", teacher="dense"),
    Row(name="lasso-1.43x", title="group Lasso, 1.43x", recipe="group-lasso", start="dense",
        changes={"structure.density": "0.7"}),
    Row(name="lasso-2x", title="group Lasso, 2x", recipe="group-lasso", start="dense"),
    Row(name="lasso-ksteps-2x", title="group Lasso on K-steps of the array, 2x", recipe="group-lasso",
        start="dense", changes={"structure": "{kind: blocks, rows: 16, columns: 4, density: 0.5}"}),
    Row(name="mlpruning-partial-63", title="MLPruning, heads and rows, 63 %", recipe="mlpruning-partial",
        start="dense", changes={"stages.0.remaining": "0.63"}, shown=False),
    Row(name="mlpruning-partial-40", title="MLPruning, heads and rows, 40 %", recipe="mlpruning-partial",
        start="dense"),
    Row(name="mlpruning-partial-20", title="MLPruning, heads and rows, 20 %", recipe="mlpruning-partial",
        start="dense", changes={"stages.0.remaining": "0.2"}),
    Row(name="mlpruning-full-40", title="MLPruning, then blocks, 40 %", recipe="mlpruning-blocks",
        start="mlpruning-partial-63", changes={"stages.0.remaining": "0.63"}),
    Row(name="mlpruning-full-20", title="MLPruning, then blocks, 20 %", recipe="mlpruning-blocks",
        start="mlpruning-partial-40"),
)}
"""Every row, by name, in the order of the table."""

MODELS_KEPT = frozenset(other for row in ROWS.values() for other in (row.start, row.teacher) if other)
"""Rows whose models other rows need; the models of the others are deleted when they are measured."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: a row on a task with a seed; ``task`` is "text" and ``seed`` 0 for a row on plain text."""

    row: Row
    task: str
    seed: int

    @property
    def name(self):
        """Name of its files."""
        return f"{self.row.name}.{self.task}.{self.seed}"

    def of(self, row_name):
        """The run of another row on the same task and seed; None for the pretrained model."""
        return None if row_name in (None, PRETRAINED) else make_job(ROWS[row_name], self.task, self.seed)

    @property
    def needs(self):
        """The runs that must be finished before."""
        return [job for job in (self.of(self.row.start), self.of(self.row.teacher)) if job]


def make_job(row, task, seed):
    """The run of a row for a task and a seed."""
    return Job(row=row, task=TEXT, seed=0) if row.on_text else Job(row=row, task=task, seed=seed)


def plan_jobs(rows, tasks, seeds):
    """Runs of these rows and of all that they need, each once and after those; seed by seed, row by row."""
    found = {}

    def add(job):
        for needed in job.needs:
            add(needed)
        found.setdefault(job.name, job)

    for seed in seeds:
        for name in rows:
            for task in tasks:
                add(make_job(ROWS[name], task, seed))
    return list(found.values())
