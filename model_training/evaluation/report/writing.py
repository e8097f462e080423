"""The files of a report. The same evaluation always gives the same bytes."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec

from model_training.evaluation.report import findings
from model_training.evaluation.report.markdown import report_markdown
from model_training.evaluation.report.page import report_page
from model_training.evaluation.report.plots import plots, to_png
from model_training.evaluation.results import Evaluation


def write(evaluation: Evaluation, folder: Path) -> dict[str, str]:
    """Write the report into `folder`; name -> path of every file.

    The files are report.json, report.md, report.html and plots/*.png; other plots of an earlier
    report are removed. ValueError if a number is not finite.
    """
    drawn = plots(evaluation)
    files = {
        "report.json": to_json(json_dict(evaluation)).encode(),
        "report.md": report_markdown(evaluation, drawn).encode(),
        "report.html": report_page(evaluation, drawn).encode(),
        **{f"plots/{plot.name}.png": to_png(plot.figure) for plot in drawn},
    }
    return write_files(folder, files)


def write_report(data: str, evaluation: Evaluation) -> str:
    """Write the report to `reports/PROTOCOL[-ablate-X]` of the data folder; its page's path.

    The data folder may be in an object store.
    """
    filesystem, base = fsspec.core.url_to_fs(data)
    folder = f"{base.rstrip('/')}/reports/{evaluation.name}"
    with tempfile.TemporaryDirectory() as scratch:
        for file, path in write(evaluation, Path(scratch)).items():
            filesystem.makedirs(f"{folder}/{file}".rpartition("/")[0], exist_ok=True)
            filesystem.put_file(path, f"{folder}/{file}")
    return f"{folder}/report.html"


def write_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files and remove other plots; name -> path."""
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for stale in (folder / "plots").glob("*.png"):
        if f"plots/{stale.name}" not in files:
            stale.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in files}


def json_dict(evaluation: Evaluation) -> dict[str, Any]:
    """What `msr evaluate --json` prints, with the slices and without the seconds."""
    values = evaluation.to_json_dict()
    values.pop("seconds", None)
    k = findings.cutoff(evaluation)
    values["slices"] = {
        name: {
            row.group: {
                "users": row.num_users,
                f"hr@{k}": {
                    model: {
                        "value": round(cell.value, 4),
                        "low": round(cell.low or 0.0, 4),
                        "high": round(cell.high or 0.0, 4),
                    }
                    for model, cell in row.hit_rates.items()
                },
            }
            for row in findings.slice_rows(evaluation, name)
        }
        for name in evaluation.slices
    }
    return values


def to_json(values: Mapping[str, Any]) -> str:
    """Sorted and indented; ValueError for what JSON has no number for."""
    return json.dumps(values, sort_keys=True, indent=2, allow_nan=False) + "\n"
