"""The table of the finished runs, in Markdown, and what ran where."""

import json
from pathlib import Path
from statistics import mean, stdev

from benchmarks.task_rows import ARRAY, TEXT
from compressor.task_metrics import glue_score
from compressor.tasks import TASKS


def read_results(out):
    """The results in a directory of runs, by (row, task, seed); ValueError if there are none, or one is bad.

    Returns
    -------
    dict of (str, str, int) to dict
        As :func:`benchmarks.task_runs.run_job` writes them.
    """
    found = {}
    for path in sorted((Path(out) / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            found[result["row"], result["task"], result["seed"]] = result
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no result of a run: {error!r}") from error
    if not found:
        raise ValueError(f"{out}: no finished runs")
    return found


def score(result):
    """The task's own metric of a result, in percent."""
    return 100 * result["metrics"][TASKS[result["task"]].primary_metric]


def report(results, rows):
    """The table and the notes under it.

    Parameters
    ----------
    results : dict
        See :func:`read_results`.
    rows : list of Row
        In the order of the table.

    Returns
    -------
    str
        Markdown: a line for each row that has results, with mean and deviation over seeds and the share of
        the dense row's mean on the same seeds, and the geometric mean over the tasks where all of them ran.
    """
    tasks = [task for task in TASKS if any(key[1] == task for key in results)]
    shown = [row for row in rows if row.shown]
    scores = {(row.name, task): {seed: score(result) for (name, other, seed), result in results.items()
                                 if (name, other) == (row.name, task)}
              for row in shown for task in tasks}
    head = ["row", "weights kept", "cycles", *(f"{task}: {_metric(task)}" for task in tasks)]
    if len(tasks) > 1:
        head.append("geometric mean")
    lines = [head, ["---"] * len(head)]
    for row in shown:
        found = [scores[row.name, task] for task in tasks]
        if not any(found):
            continue
        dense = [scores.get(("dense", task), {}) for task in tasks]
        lines.append([row.title, _kept(results, row), _cycles(results, row), *map(_cell, found, dense)])
        if len(tasks) > 1:
            lines[-1].append(_mean_cell(found, dense))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("| --- ", "|---")
    return "\n\n".join([text.replace("--- |\n", "---|\n"), *_notes(results, shown, scores, tasks)])


def _metric(task):
    return TASKS[task].primary_metric.replace("_", " ")


def _kept(results, row):
    return _span(result["kept"] for (name, _, _), result in results.items() if name == row.name)


def _cycles(results, row):
    """Of the dense row's, which all have one encoder."""
    dense = _cycles_of(results, "dense")
    return _span(cycles / dense[0] for cycles in _cycles_of(results, row.name)) if dense else ""


def _cycles_of(results, row_name):
    return [result["cycles"] for (name, _, _), result in results.items()
            if name == row_name and result.get("cycles")]


def _span(shares):
    """``46 to 50 %``: the smallest and the largest; empty if there are none."""
    if not (found := sorted(shares)):
        return ""
    low, high = (f"{100 * share:.0f}" for share in (found[0], found[-1]))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _cell(found, dense):
    """``82.4 ± 0.3 (3), 99.1 %``: mean, deviation and number of seeds, and the share of dense."""
    if not found:
        return ""
    values = list(found.values())
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread} ({len(values)}){_share([found], [dense], mean)}"


def _mean_cell(found, dense):
    if not all(found):
        return ""
    return f"{_geometric([mean(scores.values()) for scores in found]):.1f}{_share(found, dense, _geometric)}"


def _share(found, dense, average):
    """Of the dense row, on the seeds that both have run with: a lucky seed helps neither."""
    both = [own.keys() & other.keys() for own, other in zip(found, dense, strict=True)]
    if not all(both):
        return ""
    own, other = (average([mean(scores[seed] for seed in seeds)
                           for scores, seeds in zip(side, both, strict=True)]) for side in (found, dense))
    return f", {100 * own / other:.1f} %" if other > 0 else ""


def _geometric(means):
    return glue_score(means) if min(means) > 0 else 0.0


def _notes(results, rows, scores, tasks):
    """What the cells mean, what ran where, and what did not run."""
    yield ("Mean over seeds ± their deviation (number of seeds), share of the dense row on the same seeds; "
           "empty cells did not run. Every value is that of the validation set after the last step; no best "
           "epoch is chosen.")
    if dense := _cycles_of(results, "dense"):
        yield (f"Cycles are those of the whole encoder on one array of 256 multipliers, {ARRAY['tokens']} "
               f"tokens, predicted (simulation takes exactly as many); dense takes {dense[0]:,}.")
    for task in (*tasks, TEXT):
        runs = [result for (_, other, _), result in results.items() if other == task]
        if not runs:
            continue
        where = sorted({f"{run['device']}, {run['precision']}, {run['date']}" for run in runs})
        steps = sorted({run["steps"] for run in runs})
        span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        sizes = " or ".join(f"{size:,}" for size in sorted({run["training_rows"] for run in runs}))
        yield f"{task}: {len(runs)} runs of {span} steps on {sizes} training rows ({'; '.join(where)})."
    missing = [row.title for row in rows if not any(scores[row.name, task] for task in tasks)]
    if missing:
        yield f"Not run: {'; '.join(missing)}."
