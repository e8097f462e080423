"""How good are the cheap rankers on real data, under protocols that cannot be gamed?

    msr bench evaluate-microlens FOLDER [--data FOLDER] [--protocols chrono-uniform,...]

From the raw MicroLens-50k files to five evaluations: prepare-catalogue (k-core 7/5), fit-retrieval
(once for the last item as the target, once for the `paper` protocol), fit-ranker on validation
users, evaluate on all test users. FOLDER is MSR_MICROLENS if left out; `--made-up` takes a small
catalogue in the same format instead. `--data` keeps the artifacts for a second run, and the reports
with one page over all of them in its `reports/`.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import microlens_files
from benchmarks.support.protocol_tables import Check, checks_table, metrics_table
from model_training.data.protocols import PROTOCOLS
from model_training.evaluation import evaluate, report
from model_training.evaluation.results import Evaluation
from model_training.rankers import fit_ranker, fit_retrieval
from services.batch import prepare_catalogue
from services.batch.readers.microlens import MicroLens
from services.core.artifacts import Artifact

# (protocol, model): bars by metric. AUC of the first three is a check of the protocol itself, and
# must be met within TOLERANCE; everything else is at least this.
PROTOCOL_CHECKS = {"popularity": 0.66, "item-knn": 0.72, "tf-idf": 0.67}
TOLERANCE = 0.02
MAX_FIT_SECONDS = 900
QUICK = ("--made-up", "--protocols", "chrono-uniform")
BARS: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("chrono-uniform", "sasrec"): {"auc": 0.905, "hr@5": 0.85, "mrr@5": 0.645},
    ("chrono-uniform", "fusion"): {"auc": 0.920, "hr@5": 0.875, "mrr@5": 0.67},
    ("chrono-popularity", "fusion"): {"auc": 0.917, "hr@5": 0.872},
    ("chrono-era", "fusion"): {"auc": 0.80},
    ("paper", "fusion"): {"auc": 0.93, "hr@5": 0.895, "mrr@5": 0.70},
    ("full", "fusion"): {"hr@10": 0.15},
}


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Each protocol's models with their metrics and intervals: `{protocol: {model: {metric}}}`.

    `fit_seconds` of SASRec is how long all cheap rankers took.
    """
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory())
        folder, data = microlens_files.folder(options, Path(work)), options.data or f"{work}/data"
        evaluations, seconds = await _evaluate_all(folder, data, options.protocols)
        report.write_collected(evaluations, Path(data) / "reports")
    figures: dict[str, Any] = {
        evaluation.protocol: {
            name: dict(found.metrics) for name, found in evaluation.models.items()
        }
        for evaluation in evaluations
    }
    for protocol, taken in seconds.items():
        figures[protocol]["sasrec"]["fit_seconds"] = taken
    return figures


def table(figures: dict[str, Any]) -> str:
    """Bars and figures, then every model's metrics with their intervals."""
    return f"{checks_table(_check_bars(figures))}\n\n{metrics_table(figures)}"


async def _evaluate_all(
    folder: str, data: str, protocols: Sequence[str]
) -> tuple[list[Evaluation], dict[str, float]]:
    """The evaluations, and by protocol the seconds that its cheap rankers took, if they were fitted
    for it: several protocols share some, and an earlier run's are taken over.
    """
    await asyncio.to_thread(prepare_catalogue.run, MicroLens(folder), data=data)
    evaluations, seconds = [], {}
    for protocol in protocols:
        before = _fingerprint(data, protocol)
        started = time.perf_counter()
        await asyncio.to_thread(fit_retrieval.ensure, data, PROTOCOLS[protocol].cut)
        if _fingerprint(data, protocol) != before:
            seconds[protocol] = round(time.perf_counter() - started, 1)
        await fit_ranker.ensure(data, protocol=protocol)
        evaluations.append(await evaluate.run(data, None, protocol=protocol))
    return evaluations, seconds


def _fingerprint(data: str, protocol: str) -> str:
    artifact = Artifact(data, PROTOCOLS[protocol].retrieval)
    return artifact.manifest().fingerprint if artifact.exists() else ""


def _check_bars(figures: dict[str, Any]) -> list[Check]:
    """The bars of what was evaluated."""
    checks: list[Check] = []
    uniform = figures.get("chrono-uniform", {})
    for model, expected in PROTOCOL_CHECKS.items():
        if model in uniform:
            found = uniform[model]["auc"]
            held = abs(found - expected) <= TOLERANCE
            bar = f"{expected} ± {TOLERANCE}"
            checks.append(("chrono-uniform", model, "auc", bar, found, held))
    for (protocol, model), bars in BARS.items():
        for metric, least in bars.items():
            if protocol in figures:
                found = figures[protocol][model][metric]
                checks.append((protocol, model, metric, str(least), found, found >= least))
    for protocol, models in figures.items():
        if taken := models["sasrec"].get("fit_seconds"):
            bar = f"{MAX_FIT_SECONDS} at most"
            checks.append((protocol, "sasrec", "seconds", bar, taken, taken <= MAX_FIT_SECONDS))
    if "chrono-popularity" in figures:
        found = figures["chrono-popularity"]["popularity"]["auc"]
        check = ("chrono-popularity", "popularity", "auc", "0.5 at most", found, found <= 0.5)
        checks.append(check)
    return checks


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench evaluate-microlens")
    microlens_files.add_options(parser)
    parser.add_argument("--data", help="where artifacts and reports are kept; else nowhere")
    parser.add_argument("--protocols", type=lambda names: names.split(","), default=list(PROTOCOLS))
    return parser.parse_args(arguments)
