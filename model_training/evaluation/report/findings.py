"""The content of a report: tables, the result in words, warnings, and facts.

Markdown and the page both take their content from here, so they agree. All numbers come from the
evaluation; only the slices are computed here, because it holds ranks and no slice metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from model_training.evaluation.results import MODELS, Evaluation, ModelResult

MAIN_METRICS = ("auc", "auc_user", "hr@5", "mrr@5", "ndcg@5", "hr@10")
SIGNIFICANT = 0.05
FEW_TEST_USERS = 200
FEW_USERS_OF_A_SLICE = 30
TRIVIAL = ("random", "popularity", "trending")
# Shown elsewhere in a report; the seconds differ between runs.
_NOT_LISTED = ("command", "left_out", "seconds", "shortened")
_ABLATIONS = {
    "cover": "every cover was replaced by an empty one",
    "preference": "the multimodal model got no preference",
    "user": "every user was scored by another user's preference",
    "direct": "preferences were written in one go instead of block after block",
}
# Facts that count test users without results, and the reasons.
_USERS_LEFT_OUT = {
    "users_without_task": "too short a history or too few possible negatives for a ranking task",
    "users_without_preference": "no written preference",
}


@dataclass(frozen=True)
class Cell:
    """One metric of one model with its 95 % interval, if it has one."""

    value: float
    low: float | None
    high: float | None
    best: bool

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else span(self.low, self.high)


@dataclass(frozen=True)
class Row:
    """A model in a table; `cells` by metric, None where the protocol has no such metric."""

    model: str
    best_baseline: bool
    cells: dict[str, Cell | None]
    comparison: str


@dataclass(frozen=True)
class SliceRow:
    """One group of a slice: each model's hit rate there, with its Wilson interval."""

    group: str
    num_users: int
    hit_rates: dict[str, Cell]

    @property
    def few(self) -> bool:
        return self.num_users < FEW_USERS_OF_A_SLICE


# --- tables --------------------------------------------------------------------------------------


def metric_names(evaluation: Evaluation) -> list[str]:
    """All metrics that a model has, in the order in which the models list them."""
    names: dict[str, None] = {}
    for result in evaluation.models.values():
        for name in result.metrics:
            if not name.endswith(("_low", "_high")):
                names[name] = None
    return list(names)


def main_metrics(evaluation: Evaluation) -> list[str]:
    """The metrics that fit the first table; another table has all of them."""
    return [name for name in metric_names(evaluation) if name in MAIN_METRICS]


def metric_title(name: str) -> str:
    """The name for readers: "hr@5" is HR@5, "auc_user" is AUC per user."""
    return {"auc": "AUC", "auc_user": "AUC per user"}.get(name, name.upper())


def rows(evaluation: Evaluation, metrics: Sequence[str]) -> list[Row]:
    """A row per model; the best value of each metric is marked, and its ties too."""
    best = {
        name: max(o.metrics[name] for o in evaluation.models.values() if name in o.metrics)
        for name in metrics
    }
    return [
        Row(
            model,
            model == best_baseline(evaluation),
            {name: _cell(result, name, best[name]) for name in metrics},
            comparison(evaluation, model),
        )
        for model, result in evaluation.models.items()
    ]


def _cell(result: ModelResult, name: str, best: float) -> Cell | None:
    if name not in result.metrics:
        return None
    value = result.metrics[name]
    low, high = result.metrics.get(f"{name}_low"), result.metrics.get(f"{name}_high")
    return Cell(value, low, high, value == best)


def cutoff(evaluation: Evaluation) -> int:
    """The k of the hit rate in slices: 5 for sampled candidates, 10 for a whole catalogue."""
    return 10 if evaluation.rules.whole_catalogue else 5


def slice_rows(evaluation: Evaluation, name: str) -> list[SliceRow]:
    """The groups of a slice, with every model's hit rate among the group's users."""
    return [
        SliceRow(
            group,
            int(mask.sum()),
            {
                model: wilson(result.ranks[mask] < cutoff(evaluation))
                for model, result in evaluation.models.items()
            },
        )
        for group, mask in evaluation.slices[name]
        if mask.any()
    ]


def wilson(hits: NDArray[np.bool_]) -> Cell:
    """A share and its 95 % Wilson interval, which stays within [0, 1] for few users too."""
    interval = binomtest(int(hits.sum()), hits.size).proportion_ci(method="wilson")
    return Cell(float(hits.mean()), interval.low, interval.high, best=False)


# --- sentences -----------------------------------------------------------------------------------


def subject(evaluation: Evaluation) -> str | None:
    """The model that the report is about: the last one compared with a baseline."""
    compared = [model for model in evaluation.models if model in evaluation.comparisons]
    return compared[-1] if compared else None


def best_baseline(evaluation: Evaluation) -> str | None:
    """The baseline of the subject: the best of the other models without a multimodal model."""
    model = subject(evaluation)
    return None if model is None else str(evaluation.comparisons[model]["baseline"])


def comparison(evaluation: Evaluation, model: str) -> str:
    """For instance "+0.021 [0.008, 0.034] HR@5, p = 0.002, against fusion"; "" without one."""
    found = evaluation.comparisons.get(model)
    if found is None:
        return ""
    return (
        f"{float(found['difference']):+.3f} {span(found['low'], found['high'])} "
        f"{metric_title(str(found['metric']))}, {p_value(float(found['p_value']))}, "
        f"against {found['baseline']}"
    )


def verdict(evaluation: Evaluation) -> str:
    """The result in one or two sentences, which say so if it may be noise."""
    model = subject(evaluation)
    if model is None:
        names = ", ".join(evaluation.models)
        return (
            f"Evaluated: {names}, with no paired comparison; so no model is shown to be better "
            "than another."
        )
    found = evaluation.comparisons[model]
    metric, baseline = str(found["metric"]), str(found["baseline"])
    difference, p = float(found["difference"]), float(found["p_value"])
    if p >= SIGNIFICANT:
        claim = f"{model} and {baseline} show no significant difference in {metric_title(metric)}"
        end = f"this evaluation does not show that {model} is better or worse."
    else:
        better = difference > 0
        claim = f"{model} is {'better' if better else 'worse'} than {baseline} in "
        claim += metric_title(metric)
        end = f"a difference that {len(evaluation.users):,} users make unlikely to be chance."
    return (
        f"{claim}: {_worded(evaluation, model, metric)} against "
        f"{_worded(evaluation, baseline, metric)}, paired difference {difference:+.3f} "
        f"{span(found['low'], found['high'])}, {p_value(p)}; {end}"
    )


def trivial_rankers(evaluation: Evaluation) -> str:
    """The metrics of rankers that ignore the user: the floor for every other number."""
    known = [model for model in TRIVIAL if model in evaluation.models]
    if not known:
        return "No ranker that ignores the user was evaluated, so the floor is unknown."
    metrics = [
        name
        for name in (main_metrics(evaluation)[0], f"hr@{cutoff(evaluation)}")
        if name in metric_names(evaluation)
    ]
    reached = "; ".join(
        f"{model} reaches "
        + " and ".join(_worded(evaluation, model, name, titled=True) for name in metrics)
        for model in known
    )
    return f"The floor, from rankers that ignore the user: {reached}."


def _worded(evaluation: Evaluation, model: str, metric: str, *, titled: bool = False) -> str:
    metrics = evaluation.models[model].metrics if model in evaluation.models else {}
    title = f"{metric_title(metric)} " if titled else ""
    return f"{title}{metrics[metric]:.3f}" if metric in metrics else f"{title}not measured"


def warnings(evaluation: Evaluation) -> list[str]:
    """What readers must know before they quote a number."""
    found = []
    if label := evaluation.rules.explanation.warning:
        found.append(label)
    if evaluation.ablate is not None:
        found.append(f"An ablation: {_ABLATIONS[evaluation.ablate]}. This is not what is served.")
    if len(evaluation.users) < FEW_TEST_USERS:
        found.append(
            f"Only {len(evaluation.users):,} test users (fewer than {FEW_TEST_USERS}): the "
            "intervals are wide, and small differences mean nothing."
        )
    found += [
        f"{number:,} of the test users had {what}: no number includes them."
        for name, what in _USERS_LEFT_OUT.items()
        if (number := int(evaluation.facts.get(name, 0)))
    ]
    left_out = dict(evaluation.facts.get("left_out", {}))
    found += [f"{model} was left out: {reason}" for model, reason in left_out.items()]
    unasked = [name for name in MODELS if name not in {*evaluation.models, *left_out}]
    if unasked:
        found.append(f"Not evaluated in this run: {', '.join(unasked)}.")
    if shortened := evaluation.facts.get("shortened"):
        found.append(
            f"{shortened:,} prompts were too long for the model and lost their oldest text."
        )
    if len(evaluation.comparisons) > 1:
        found.append(
            f"{len(evaluation.comparisons)} models were tested, and the p-values are not corrected "
            "for multiple tests."
        )
    return found


# --- facts ---------------------------------------------------------------------------------------


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """The data and software of the evaluation, as (name, value); nested names are joined.

    Seconds are left out, so that the same evaluation gives the same report.
    """
    listed = {key: value for key, value in evaluation.facts.items() if key not in _NOT_LISTED}
    return [("negatives", evaluation.negatives), *_flat(listed, "")]


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            found.append((name, ", ".join(map(str, value))))
        else:
            found.append((name, f"{value:,}" if isinstance(value, int) else str(value)))
    return found


def command(evaluation: Evaluation) -> str:
    """The command line that makes this report again."""
    if recorded := evaluation.facts.get("command"):
        return str(recorded)
    ablate = f" --ablate {evaluation.ablate}" if evaluation.ablate else ""
    models = ",".join(evaluation.models)
    return f"msr evaluate --data DATA --protocol {evaluation.protocol} --models {models}{ablate}"


# --- numbers -------------------------------------------------------------------------------------


def span(low: float | str, high: float | str) -> str:
    return f"[{float(low):.3f}, {float(high):.3f}]"


def p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
