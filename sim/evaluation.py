"""A build scored on its task: rows through the simulated Verilog, the golden model and torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compressor.golden_model import GoldenModel
from compressor.quantized_model import to_quantized_model
from compressor.reload import encode, to_model, to_tokenizer
from compressor.synthetic_task import generate
from compressor.task_files import TaskError, read_rows
from compressor.task_metrics import compute_metrics, predictions
from compressor.tasks import checked_rows
from compressor.text_file import StrPath
from sim.activity import cycle_breakdown
from sim.encoder_run import EncoderBench
from sim.open_build import OpenBuild
from sim.results import Progress, Result
from sim.sentences import task_of


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """What the rows of a task gave.

    Parameters
    ----------
    data : str
    rows, tokens : int
    metric : str
        The task's own metric, see :func:`compressor.task_metrics.compute_metrics`.
    metrics : dict of str to dict of str to float
        All metrics of the task by name, at most 1, of ``rtl``: the simulated Verilog computes the encoder,
        the host embeddings, pooler and classifier; ``golden``: the golden model computes the encoder;
        ``fake_quantized``: the torch twin of the golden model, every integer equal, pooler and classifier
        in float32; ``float``: torch in float, with the pruned and dequantized weights of the bundle.
    prediction_mismatches : int
        Rows whose predicted label, or number, differs between Verilog and golden model.
    word_mismatches, words : int
        Words of the last hidden states that differ from the golden model, and words compared.
    cycles : int
        Clock cycles of all rows.
    breakdown : dict of str to int
        Where they went, see :data:`sim.activity.BREAKDOWN`.
    wall_seconds, sentences_per_second : float
        Time that the bench took, and its speed.
    """

    data: str
    rows: int
    tokens: int
    metric: str
    metrics: dict[str, dict[str, float]]
    prediction_mismatches: int
    word_mismatches: int
    words: int
    cycles: int
    breakdown: dict[str, int]
    wall_seconds: float
    sentences_per_second: float

    def problems(self) -> list[str]:
        """What is wrong, one line each; empty if Verilog and golden model agree in every word."""
        lines = [] if self.words else ["no output word was compared"]
        for found, of, what in ((self.word_mismatches, self.words, "output words"),
                                (self.prediction_mismatches, self.rows, "predictions")):
            if found:
                lines.append(f"{found:,} of {of:,} {what} differ from the golden model")
        return lines


def evaluate_build(build: OpenBuild, data: StrPath, *, limit: int = 64, sequences: int = 8,
                   progress: Progress | None = None) -> EvaluationResult:
    """Evaluate a build on labelled rows of its task.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    data : str or Path
        A .jsonl, .jsonl.gz, .tsv or .csv file with the task's text fields and labels, or ``synthetic``.
    limit : int
        Rows, from the first.
    sequences : int
        Rows that the accelerator runs in one go.
    progress : callable(str, int, int), optional
        Called with what is going on, and the rows done and to do.

    Returns
    -------
    EvaluationResult

    Raises
    ------
    TaskError
        If the rows cannot be used, or the task has neither classes nor numbers to predict.
    PlanError, BundleError, ToolError, SimulationError
    """
    progress = progress or (lambda what, done, total: None)
    bundle = build.bundle
    task, rows = _rows(bundle, data, limit)
    progress("compiling", 0, len(rows))
    labels = [row["label"] for row in rows]
    texts = [tuple(row[name] for name in task.fields) for row in rows]
    texts = [text if len(text) > 1 else text[0] for text in texts]
    golden, tokenizer = GoldenModel.of(bundle), to_tokenizer(bundle)
    models = {"float": to_model(bundle), "fake_quantized": to_quantized_model(bundle)}
    logits: dict[str, list[Any]] = {name: [] for name in ("rtl", "golden", *models)}
    comparisons: list[Any] = []
    reports: list[Any] = []
    with EncoderBench(build) as bench:
        for batch in encode(tokenizer, texts, bench.program.tokens, batch_size=sequences):
            x, lengths = golden.inputs(batch)
            done = len(comparisons)
            output = bench.run(x, lengths)
            comparisons += [one for _, one in bench.compare(output, x, lengths)]
            reports.append(output.report)
            logits["rtl"].append(golden.host.classify(output.hidden))
            logits["golden"].append(golden.host.classify(golden.encoder.compute(x, lengths)))
            with torch.no_grad():
                for name, model in models.items():
                    logits[name].append(model(**batch).logits.numpy())
            progress(f"{done + len(x)} of {len(rows)} rows", done + len(x), len(rows))
    wall = sum(one.wall_seconds for one in reports)
    values = {name: np.concatenate(parts) for name, parts in logits.items()}
    return EvaluationResult(
        data=str(data), rows=len(rows), tokens=bench.program.tokens,
        metric=task.primary_metric,
        metrics={name: compute_metrics(task, found, labels) for name, found in values.items()},
        prediction_mismatches=int((predictions(task, values["rtl"])
                                   != predictions(task, values["golden"])).sum()),
        word_mismatches=sum(one.mismatches for one in comparisons),
        words=sum(one.words for one in comparisons), wall_seconds=wall,
        cycles=sum(one.counters["cycles"] for one in reports), breakdown=cycle_breakdown(reports),
        sentences_per_second=len(rows) / max(wall, 1e-9))


def _rows(bundle, data, limit):
    task = task_of(bundle)
    if task.spans or not task.metrics:
        raise TaskError(f"the bundle's task is {task.name!r}, which predicts neither classes nor numbers; "
                        "export a model that was trained on a task that does")
    rows = generate(limit, seed=2) if str(data) == "synthetic" else read_rows(data)
    return task, checked_rows(task, rows, str(data))[:limit]
