"""The figures of a report: ROC, HR@k curves, reliability of P(Yes), and hit rates by slice.

Figures are made without pyplot, whose state would outlive them; `svg.py` and `to_png` turn them
into bytes. One is narrow enough to be read on a phone at its full width.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from model_training.evaluation.report.findings import (
    FEW_USERS_OF_A_SLICE,
    cutoff,
    metric_title,
    slice_rows,
    wilson,
)
from model_training.evaluation.report.models import SOLID, style_of
from model_training.evaluation.results import Evaluation
from model_training.scoring.metrics import first_column

INK, MUTED, RULE = "#14171a", "#5c646c", "#d5d9dd"
WIDTH_INCHES = 5.2
DOTS_PER_INCH = 160
NUM_BINS = 10
_CURVE_POINTS = 160  # of a ROC curve; more cannot be seen and make the page heavy

# Keys of matplotlib, which types them by a list of all its names.
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "msr",
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Plot:
    """A figure, the name of its file, its heading, its content in words, and how to read it."""

    name: str
    title: str
    alt: str
    caption: str
    figure: Figure


@contextmanager
def drawing() -> Iterator[None]:
    """The report's style instead of the process's; needed while drawing and while saving."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def plots(evaluation: Evaluation) -> list[Plot]:
    """All figures that the evaluation has data for: ROC needs scores, calibration P(Yes)."""
    with drawing():
        found = [_hit_rates(evaluation)]
        if any(result.scores is not None for result in evaluation.models.values()):
            found.append(_roc(evaluation))
        found += [
            _reliability(evaluation, model)
            for model, result in evaluation.models.items()
            if result.probabilities is not None
        ]
        found += [
            _slices(evaluation, number, name)
            for number, name in enumerate(evaluation.slices, 1)
            if slice_rows(evaluation, name)
        ]
    return found


def to_png(figure: Figure) -> bytes:
    """The figure as PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    with drawing():
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


# --- curves --------------------------------------------------------------------------------------


def _hit_rates(evaluation: Evaluation) -> Plot:
    catalogue = evaluation.rules.whole_catalogue
    last = min(100 if catalogue else 20, evaluation.num_candidates)
    ks = np.arange(1, last + 1)
    figure, axes = _figure(3.9)
    rates = {model: hit_rates(result.ranks, last) for model, result in evaluation.models.items()}
    for model, values in rates.items():
        axes.plot(ks, values, **_line(model))
    axes.set(xlabel="k", ylabel="HR@k: target among the first k", xlim=(1, max(last, 2)))
    if catalogue:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    marks = (1, 2, 5, 10, 20, 50, 100) if catalogue else (1, 3, 5, 10, 15, 20)
    axes.set_xticks([k for k in marks if k <= last], [str(k) for k in marks if k <= last])
    axes.set_ylim(0, None if catalogue else 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend(figure, list(evaluation.models))
    k = min(cutoff(evaluation), last)
    reached = ", ".join(f"{model} {values[k - 1]:.3f}" for model, values in rates.items())
    return Plot(
        "hit-rates",
        "HR@k: how often the target is near the top",
        f"Curves of HR@k for k from 1 to {last}. At k = {k}: {reached}.",
        "Share of users whose target is among the first k. Higher is better"
        + (", and k is on a logarithmic axis." if catalogue else "."),
        figure,
    )


def hit_rates(ranks: NDArray[np.int64], last: int) -> NDArray[np.float64]:
    """HR@1 to HR@`last` (last,) of ranks (U,)."""
    counts = np.bincount(np.minimum(ranks, last), minlength=last + 1)[:last]
    return np.asarray(np.cumsum(counts) / ranks.size)


def _roc(evaluation: Evaluation) -> Plot:
    figure, axes = _figure(4.6)
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1)
    areas = []
    for model, result in evaluation.models.items():
        if result.scores is None:
            continue
        false_rate, true_rate = roc(result.scores)
        axes.plot(false_rate, true_rate, **_line(model))
        areas.append((model, result.metrics.get("auc")))
    axes.set(xlabel="share of negatives above the threshold", xlim=(-0.005, 1), ylim=(0, 1.01))
    axes.set(ylabel="share of targets above the threshold")
    _legend(figure, [model for model, _ in areas])
    listed = ", ".join(f"{model} {area:.3f}" for model, area in areas if area is not None)
    return Plot(
        "roc",
        "ROC: targets against negatives, all users pooled",
        f"ROC curves, scores of all users pooled. Area under the curve: {listed}.",
        "ROC over the scores of all users. The diagonal is chance; the area under a curve is the "
        "AUC in the table.",
        figure,
    )


def roc(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positive rates of scores (U, C), target first; equal scores give a slope.

    From (0, 0) to (1, 1), thinned to what can be seen.
    """
    labels = first_column(scores).ravel()
    false_rate, true_rate, _ = roc_curve(labels, scores.ravel(), drop_intermediate=False)
    # Evenly along the curve, so that steep and flat stretches keep their shape.
    length = true_rate + false_rate
    keep = np.unique(np.searchsorted(length, np.linspace(0, 2, _CURVE_POINTS)))
    keep = np.unique(np.append(keep[keep < length.size], length.size - 1))
    return false_rate[keep], true_rate[keep]


# --- P(Yes) --------------------------------------------------------------------------------------


def _reliability(evaluation: Evaluation, model: str) -> Plot:
    figure = Figure(figsize=(WIDTH_INCHES, 5.4))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1.2)
    color = style_of(model).light
    result, errors = evaluation.models[model], evaluation.calibration.get(model, {})
    described = []
    for when, values, shade, marker, dash, error in (
        ("before", result.raw_probabilities, MUTED, "s", "--", errors.get("ece_before")),
        ("after", result.probabilities, color, "o", SOLID, errors.get("ece_after")),
    ):
        assert values is not None
        label = f"{when} calibration"
        means, shares, lows, highs, sizes = reliability(values)
        axes.vlines(means, lows, highs, color=shade, linewidth=0.9)
        axes.plot(
            means,
            shares,
            color=shade,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            linestyle=dash,
            label=label + ("" if error is None else f", ECE {error:.3f}"),
        )
        counts.stairs(
            sizes, np.linspace(0, 1, NUM_BINS + 1), color=shade, linestyle=dash, linewidth=1.4
        )
        described.append(label + ("" if error is None else f" has an error of {error:.3f}"))
    axes.set(ylabel="share of targets", ylim=(-0.02, 1.02), xlim=(-0.01, 1.01))
    axes.legend(loc="upper left")
    counts.set(xlabel="P(Yes)", ylabel="candidates", yscale="log", ylim=(0.8, None))
    # The default writes powers of ten as mathematics, which these plots do not parse.
    counts.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    counts.yaxis.set_minor_formatter(NullFormatter())
    return Plot(
        f"calibration-{_file_name(model)}",
        f"Calibration of {model}",
        f"Reliability diagram of {model}: {'; '.join(described)}.",
        "Candidates grouped by their probability: on the diagonal, of those given 30 % three in "
        "ten are the target. Bars are 95 % Wilson intervals; below, how many candidates a group "
        "has. It is valid for lists with the same number of negatives to a target.",
        figure,
    )


def reliability(
    probabilities: NDArray[np.float64],
) -> tuple[NDArray[np.float64], ...]:
    """Mean P(Yes), share of targets, its interval's ends, and the sizes of all NUM_BINS bins.

    Of probabilities (U, C), the target first. The first four are over the bins that are not empty.
    """
    values, labels = probabilities.ravel(), first_column(probabilities).ravel()
    shares, means = calibration_curve(labels, values, n_bins=NUM_BINS)
    bins = np.searchsorted(np.linspace(0, 1, NUM_BINS + 1)[1:-1], values)  # scikit-learn's
    cells = [wilson(labels[bins == number]) for number in np.unique(bins)]
    lows, highs = np.array([(cell.low, cell.high) for cell in cells]).T
    return means, shares, lows, highs, np.bincount(bins, minlength=NUM_BINS).astype(float)


# --- slices --------------------------------------------------------------------------------------


def _slices(evaluation: Evaluation, number: int, name: str) -> Plot:
    groups = slice_rows(evaluation, name)
    # A dotted line shows chance, so `random` needs no bars.
    models = [model for model in evaluation.models if model != "random"] or ["random"]
    height = 1.1 + len(groups) * (0.12 * len(models) + 0.3)
    figure, axes = _figure(height)
    thickness = 0.82 / len(models)
    for place, model in enumerate(models):
        cells = [row.hit_rates[model] for row in groups]
        values, lows, highs = np.array([(each.value, each.low, each.high) for each in cells]).T
        heights = np.arange(len(groups)) + (place - (len(models) - 1) / 2) * thickness
        bars = axes.barh(heights, values, thickness * 0.9, color=style_of(model).light)
        axes.hlines(heights, lows, highs, color=MUTED, linewidth=0.8)
        for bar, row in zip(bars, groups, strict=True):
            bar.set_alpha(0.4 if row.few else 1)
    if (chance := cutoff(evaluation) / evaluation.num_candidates) < 1:
        axes.axvline(chance, color=MUTED, linestyle=":", linewidth=1.2)
    labels = [
        f"{row.group}\n{row.num_users:,} user{'s' if row.num_users != 1 else ''}" for row in groups
    ]
    axes.set_yticks(np.arange(len(groups)), labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=f"HR@{cutoff(evaluation)}")
    axes.set_xlim(0, None if evaluation.rules.whole_catalogue else 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _legend(figure, models, bars=True)
    return Plot(
        f"slice-{number}-{_file_name(name)}",
        f"By {name}",
        f"Bars of HR@{cutoff(evaluation)} by {name}; the table has the numbers.",
        "Lines on bars are 95 % Wilson intervals; the dotted line is chance."
        + (
            f" Pale bars: fewer than {FEW_USERS_OF_A_SLICE} users, too few to conclude from."
            if any(row.few for row in groups)
            else ""
        ),
        figure,
    )


# --- shared --------------------------------------------------------------------------------------


def forest(evaluations: Sequence[Evaluation], metric: str) -> Figure:
    """One panel per evaluation, with each model's metric as a dot and its interval as a line."""
    panels = {
        each.name: {name: found for name, found in each.models.items() if metric in found.metrics}
        for each in evaluations
    }
    panels = {name: models for name, models in panels.items() if models}
    with drawing():
        heights = [0.45 + 0.16 * len(models) for models in panels.values()]
        figure = Figure(figsize=(4.4, 0.6 + sum(heights)))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (name, models) in zip(grid[:, 0], panels.items(), strict=True):
            for place, (model, result) in enumerate(models.items()):
                value = result.metrics[metric]
                low = result.metrics.get(f"{metric}_low", value)
                high = result.metrics.get(f"{metric}_high", value)
                color = style_of(model).light
                axes.plot([low, high], [place, place], color=color, linewidth=2.2)
                axes.plot([value], [place], color=color, marker="o", markersize=5)
            axes.set_yticks(range(len(models)), list(models))
            axes.tick_params(axis="y", labelsize=8.5)
            axes.set_ylim(len(models) - 0.4, -0.6)
            axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
        grid[-1, 0].set_xlabel(metric_title(metric))
    return figure


def _figure(height_inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    return figure, figure.subplots()


def _line(model: str) -> dict[str, Any]:
    style = style_of(model)
    return {"color": style.light, "linestyle": style.dash, "linewidth": style.width}


def _legend(figure: Figure, models: Sequence[str], *, bars: bool = False) -> None:
    """Below the axes, where no curve is. matplotlib omits names that begin with _, so they get a
    space.
    """
    handles = [
        Patch(color=style_of(model).light) if bars else Line2D([], [], **_line(model))
        for model in models
    ]
    names = [f" {model}" if model.startswith("_") else model for model in models]
    width = 1.0 if bars else 2.8
    figure.legend(handles, names, loc="outside lower center", ncols=3, handlelength=width)


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
