"""Writes the report of an evaluation to `reports/PROTOCOL[-ablate-X]` of the data folder."""

import tempfile
from pathlib import Path

import fsspec

from model_training.evaluation import report
from model_training.evaluation.report.collected import name_of
from model_training.evaluation.results import Evaluation


def write_report(data: str, evaluation: Evaluation) -> str:
    """Write the report into the data folder, which may be an object store; its page's path."""
    filesystem, base = fsspec.core.url_to_fs(data)
    folder = f"{base.rstrip('/')}/reports/{name_of(evaluation)}"
    with tempfile.TemporaryDirectory() as scratch:
        for file, path in report.write(evaluation, Path(scratch)).items():
            filesystem.makedirs(f"{folder}/{file}".rpartition("/")[0], exist_ok=True)
            filesystem.put_file(path, f"{folder}/{file}")
    return f"{folder}/report.html"
