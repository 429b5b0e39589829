"""Pictures as SVG text: weights before and after pruning, and runs side by side. No plotting library."""

import os
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, MARGIN = 640, 160, 44
_STYLE = '<style>text{font:12px sans-serif}</style>'


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightHistogram:
    """Weights of all linear layers of an encoder.

    Parameters
    ----------
    title : str
    counts : int64 array, shape (bins,)
        Of the weights that are not zero, between -4 and 4 of their deviations, the ends included.
    zeros : float
        Share of the weights that is zero.
    deviation : float
        Root mean square of the others.
    """

    title: str
    counts: np.ndarray
    zeros: float
    deviation: float


def weight_histogram(model, *, bins=80):
    """WeightHistogram of a model, or of the one in a directory."""
    from transformers import AutoModel

    from compressor.reload import quiet_loading
    from compressor.targets import target_layers

    title = "model"
    if isinstance(model, str | os.PathLike):
        quiet_loading()
        title, model = Path(model).name, AutoModel.from_pretrained(model)
    values = np.concatenate([target.module.weight.detach().float().numpy().ravel()
                             for target in target_layers(model).values()])
    others = values[values != 0]
    deviation = float(np.sqrt(np.square(others, dtype=np.float64).mean())) if others.size else 0.0
    edges = np.linspace(-4, 4, bins + 1) * (deviation or 1.0)
    return WeightHistogram(title=title, counts=np.histogram(others.clip(edges[0], edges[-1]), edges)[0],
                           zeros=1 - others.size / values.size, deviation=deviation)


def weight_picture(histograms):
    """SVG text: one panel for each histogram, each bar a bin, the share of zeros in words."""
    widest = max(histogram.deviation for histogram in histograms) * 4 or 1.0
    parts = []
    for number, histogram in enumerate(histograms):
        top = number * HEIGHT + MARGIN // 2
        base, room = top + HEIGHT - MARGIN, HEIGHT - MARGIN - 16
        reach = histogram.deviation * 4 / widest * (WIDTH / 2 - MARGIN)
        step = 2 * reach / len(histogram.counts)
        highest = max(1, int(histogram.counts.max()))
        parts.append(f'<text x="{MARGIN}" y="{top + 8}">{escape(histogram.title)}: '
                     f'{100 * histogram.zeros:.1f} % zero</text>')
        for index, count in enumerate(histogram.counts):
            height = room * count / highest
            parts.append(f'<rect x="{WIDTH / 2 - reach + index * step:.2f}" y="{base - height:.2f}" '
                         f'width="{max(step - 0.5, 0.2):.2f}" height="{height:.2f}" fill="#4878a8"/>')
        parts.append(f'<path d="M{MARGIN} {base}H{WIDTH - MARGIN}" stroke="#444"/>')
        for share, anchor in ((-1, "start"), (0, "middle"), (1, "end")):
            x = WIDTH / 2 + share * (WIDTH / 2 - MARGIN)
            parts.append(f'<text x="{x:.1f}" y="{base + 14}" text-anchor="{anchor}">'
                         f'{share * widest:.3g}</text>')
    return _svg(len(histograms) * HEIGHT + MARGIN // 2, parts)


def comparison_picture(rows):
    """SVG text of runs: the share of weights kept across, their task's metric up; one point a run.

    ``rows`` come from :func:`compressor.comparison.compare_runs`; those without a common metric are refused.
    """
    names = [name for name in rows[0]["metrics"] if not name.endswith("loss")
             and all(name in row["metrics"] for row in rows)]
    if not names:
        raise ValueError("the runs have no metric in common; plot runs of one task")
    name, size = names[0], 320
    values = [row["metrics"][name] for row in rows]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    parts = [f'<text x="{MARGIN}" y="16">{escape(name.replace("_", " "))} over the share of encoder '
             "weights kept</text>",
             f'<path d="M{MARGIN} {MARGIN}V{size - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="#444"/>']
    for value in (low, high):
        y = size - MARGIN - 10 - (value - low) / span * (size - 2 * MARGIN - 20)
        parts.append(f'<text x="{MARGIN - 4}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{_across(share):.1f}" y="{size - MARGIN + 16}" text-anchor="middle">'
                     f'{100 * share:.0f} %</text>')
    for row, value in zip(rows, values, strict=True):
        x, y = _across(row["kept"]), size - MARGIN - 10 - (value - low) / span * (size - 2 * MARGIN - 20)
        anchor, shift = ("end", -8) if row["kept"] > 0.7 else ("start", 8)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#4878a8"/>'
                     f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">'
                     f'{escape(row["run"])}</text>')
    return _svg(size, parts)


def _across(share):
    return MARGIN + share * (WIDTH - 2 * MARGIN)


def _svg(height, parts):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}">\n{_STYLE}\n<rect width="100%" height="100%" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")
