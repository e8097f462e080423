"""The report as Markdown, readable as plain text, with every number of the page."""

from collections.abc import Iterable, Sequence

from model_training.evaluation.report import findings
from model_training.evaluation.report.findings import Cell
from model_training.evaluation.report.models import style_of
from model_training.evaluation.report.plots import Plot
from model_training.evaluation.results import Evaluation


def report_markdown(evaluation: Evaluation, plots: Sequence[Plot]) -> str:
    """The whole `report.md`; it shows the plots from the folder `plots` beside it."""
    explanation = evaluation.rules.explanation
    parts = [
        f"# Evaluation: {evaluation.protocol}, {explanation.label}",
        f"**{text(findings.verdict(evaluation))}**",
        text(findings.trivial_rankers(evaluation)),
        bullets(findings.warnings(evaluation)),
        "## What was evaluated",
        explanation.task_of(evaluation.num_candidates - 1)
        + f" It shows {explanation.shows}. It does not show {explanation.hides}",
        f"{len(evaluation.users):,} test users, {evaluation.num_candidates:,} candidates each, "
        f"frozen negatives `{evaluation.negatives}`.",
        "## Results",
        metric_table(evaluation, findings.main_metrics(evaluation)),
        "The best value of a column is bold; brackets hold 95 % intervals; * marks the baseline: "
        "the best of the rankers without a multimodal model.",
        "## All metrics",
        metric_table(evaluation, findings.metric_names(evaluation)),
        "## The models",
        table(
            ["model", "what it is"],
            [[text(name), style_of(name).description] for name in evaluation.models],
        ),
    ]
    for plot in plots:
        image = f"![{text(plot.alt)}](plots/{plot.name}.png)"
        parts += [f"## {text(plot.title)}", image, text(plot.caption)]
    for name in evaluation.slices:
        parts += [f"## HR@{findings.cutoff(evaluation)} by {text(name)}"]
        parts += [_slice_table(evaluation, name)]
    if evaluation.calibration:
        parts += ["## Calibration", _calibration_table(evaluation)]
    parts += [
        "## Data and software",
        table(["fact", "value"], [[text(n), text(v)] for n, v in findings.facts(evaluation)]),
        "Command:",
        f"```\n{findings.command(evaluation)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def metric_table(evaluation: Evaluation, metrics: Sequence[str]) -> str:
    """A line per model: each metric with its interval, and the comparison."""
    return table(
        ["model", *map(findings.metric_title, metrics), "difference to the best baseline"],
        [
            [
                text(row.model) + (" *" if row.best_baseline else ""),
                *(cell_text(row.cells[name]) for name in metrics),
                text(row.comparison),
            ]
            for row in findings.rows(evaluation, metrics)
        ],
    )


def _slice_table(evaluation: Evaluation, name: str) -> str:
    return table(
        [name, "users", *evaluation.models],
        [
            [
                text(row.group),
                f"{row.num_users:,}" + (" (few)" if row.few else ""),
                *(cell_text(cell) for cell in row.hit_rates.values()),
            ]
            for row in findings.slice_rows(evaluation, name)
        ],
    )


def _calibration_table(evaluation: Evaluation) -> str:
    names = ("ece_before", "ece_after", "slope", "intercept")
    return table(
        ["model", "expected error before", "after", "slope", "intercept"],
        [
            [text(model), *(f"{found[name]:.3f}" if name in found else "-" for name in names)]
            for model, found in evaluation.calibration.items()
        ],
    )


def cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = f"**{cell.value:.3f}**" if cell.best else f"{cell.value:.3f}"
    return f"{value} {cell.interval}".rstrip()


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the header is escaped, the cells must be."""
    rows = [[text(name) for name in header], ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {text(sentence)}" for sentence in sentences)


def text(value: str) -> str:
    """One line with all markup escaped, so that Markdown shows it unchanged."""
    for mark in "\\|`*_[]<>":
        value = value.replace(mark, f"&#{ord(mark)};" if mark in "<>" else f"\\{mark}")
    return " ".join(value.split())
