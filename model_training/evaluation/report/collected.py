"""Several evaluations on one page, protocols x models, with links to the report of each.

`make evaluate-microlens` and `make evaluate-demo` write it at the end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from model_training.evaluation.report import findings
from model_training.evaluation.report.findings import Cell
from model_training.evaluation.report.markdown import bullets, cell_text, table, text
from model_training.evaluation.report.page import render
from model_training.evaluation.report.plots import forest, to_png
from model_training.evaluation.report.svg import inline_svg
from model_training.evaluation.report.writing import json_dict, to_json, write, write_files
from model_training.evaluation.results import MODELS, Evaluation

METRICS = ("auc", "hr@5", "mrr@5", "hr@10")


def write_collected(evaluations: Sequence[Evaluation], folder: Path) -> dict[str, str]:
    """Write the page on all of them into `folder` and each one's own report into a folder of it.

    report.json (name -> its report.json), report.md, report.html, plots/*.png; name -> path of
    every file. Raises ValueError without evaluations, or for two of the same protocol and ablation.
    """
    names = [evaluation.name for evaluation in evaluations]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the report needs evaluations that all differ, not {names}")
    tables = metric_tables(evaluations)
    figures = {metric: forest(evaluations, metric) for metric in tables}
    drawn = {
        metric: inline_svg(figure, _slug(metric), f"{findings.metric_title(metric)}: as the table")
        for metric, figure in figures.items()
    }
    page = render(
        "collected.html.jinja",
        evaluations=evaluations,
        names=names,
        metric_tables=tables,
        drawn=drawn,
    )
    values = {evaluation.name: json_dict(evaluation) for evaluation in evaluations}
    files = {
        "report.json": to_json(values).encode(),
        "report.md": _markdown(evaluations, tables).encode(),
        "report.html": page.encode(),
        **{f"plots/{_slug(metric)}.png": to_png(figure) for metric, figure in figures.items()},
    }
    written = write_files(folder, files)
    for evaluation in evaluations:
        own = write(evaluation, folder / evaluation.name)
        written |= {f"{evaluation.name}/{file}": path for file, path in own.items()}
    return written


def metric_tables(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, list[Cell | None]]]:
    """By each metric that any evaluation has: a row per model, in the order of every table, with a
    cell per evaluation, None without a value.
    """
    present = {model for evaluation in evaluations for model in evaluation.models}
    models = [model for model in MODELS if model in present]
    models += sorted(present - set(models))
    found = {}
    for metric in METRICS:
        columns = [
            {row.model: row.cells[metric] for row in findings.rows(evaluation, [metric])}
            if metric in findings.metric_names(evaluation)
            else {}
            for evaluation in evaluations
        ]
        if any(columns):
            found[metric] = {model: [column.get(model) for column in columns] for model in models}
    return found


def _markdown(
    evaluations: Sequence[Evaluation], tables: Mapping[str, Mapping[str, Sequence[Cell | None]]]
) -> str:
    names = [evaluation.name for evaluation in evaluations]
    parts = [
        "# Evaluation under several protocols",
        "Each column is a protocol with a task of its own, so compare numbers within a column "
        "only. Brackets hold 95 % intervals; the best of a column is bold.",
        bullets([f"{one.name}: {one.rules.explanation.label}" for one in evaluations]),
    ]
    for metric, rows in tables.items():
        lines = [[text(model), *map(cell_text, cells)] for model, cells in rows.items()]
        parts += [f"## {findings.metric_title(metric)}", table(["model", *names], lines)]
        parts += [f"![the table as a plot](plots/{_slug(metric)}.png)"]
    for evaluation in evaluations:
        parts += [
            f"## {text(evaluation.name)}",
            text(findings.verdict(evaluation)),
            text(findings.trivial_rankers(evaluation)),
            bullets(findings.warnings(evaluation)),
            f"[Full report]({evaluation.name}/report.md)",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _slug(metric: str) -> str:
    return metric.replace("@", "-at-").replace("_", "-")
