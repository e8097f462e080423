"""How much does each part add, in the demo world, where covers are what matters?

    msr bench evaluate-demo [--data FOLDER] [--users 3000] [--items 480]

The demo world's catalogue, with more users of the same kind so that a tenth of them are enough for
two digits: all of it held out from the demo model's training. The base writes every text; the cheap
rankers and the fusion are fitted there; then protocol `chrono-uniform` on all test users:

    mllm-sft       the adapter after SFT
    mllm           the shipped adapter, which went on from it by stage `rank`
    mllm-fusion    the fusion of the shipped adapter's margin and the cheap rankers

and the shipped adapter without the covers, the preference, the user's own preference, and the
recurrence that writes it. The reports and one page over all of them lie in `reports/` of `--data`.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support import demo_catalogue
from benchmarks.support.protocol_tables import Check, checks_table, metrics_table
from model_training.demo.world import NUM_ITEMS
from model_training.evaluation import evaluate, report
from model_training.evaluation.results import Evaluation, ModelResult
from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.metrics import Ranking
from model_training.scoring.score_tasks import ABLATIONS
from services.batch import build_preferences
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.local.engine import LocalEngine

PROTOCOL = "chrono-uniform"
AFTER_SFT = "mllm-sft"
MIN_AUC = 0.92
MAX_CALIBRATION_ERROR = 0.05
METRIC = "mrr@5"
QUICK = ("--users", "60", "--items", "60")
# In METRIC the first must be above the second.
GAINS = (("mllm", AFTER_SFT), ("mllm-fusion", "mllm"), ("mllm-fusion", "fusion"))


@dataclass(frozen=True)
class _Found:
    """The adapter after SFT, the shipped one, and this one with something taken away."""

    after_sft: Evaluation
    shipped: Evaluation
    ablated: tuple[Evaluation, ...]


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Each protocol's models with their metrics and intervals: `{protocol: {model: {metric}}}`.

    Beside the metrics: `gain_over_X`, the paired difference in METRIC, with its interval and
    p-value; `ece_before` and `ece_after` calibration.
    """
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        data = options.data or stack.enter_context(tempfile.TemporaryDirectory())
        await _prepare(data, options)
        found = await _evaluate_all(data)
        reports = Path(data) / "reports"
        report.write_collected([found.shipped, *found.ablated], reports)
        report.write(found.after_sft, reports / "after-sft")
    return _figures(found)


def table(figures: dict[str, Any]) -> str:
    """Bars and figures, then every model's metrics with their intervals."""
    return f"{checks_table(_check_bars(figures[PROTOCOL]))}\n\n{metrics_table(figures)}"


async def _prepare(data: str, options: argparse.Namespace) -> None:
    await demo_catalogue.prepare_items(data, num_items=options.items, num_users=options.users)
    base = LocalEngine.load(str(DEMO_WEIGHTS / "base"))
    try:
        await demo_catalogue.write_texts(data, base)
        await build_preferences.run(data, base, direct=True)
    finally:
        await base.close()


async def _evaluate_all(data: str) -> _Found:
    async def ask(adapter: str, **options: Any) -> Evaluation:
        engine = LocalEngine.load(str(DEMO_WEIGHTS / "base"), str(DEMO_WEIGHTS / adapter))
        try:
            return await evaluate.run(data, engine, protocol=PROTOCOL, **options)
        finally:
            await engine.close()

    return _Found(
        after_sft=await ask("adapter-sft", models=["mllm"]),
        shipped=await ask("adapter"),
        ablated=tuple([await ask("adapter", models=["mllm"], ablate=name) for name in ABLATIONS]),
    )


def _figures(found: _Found) -> dict[str, Any]:
    results = {**found.shipped.models, AFTER_SFT: found.after_sft.models["mllm"]}
    figures: dict[str, Any] = {name: dict(result.metrics) for name, result in results.items()}
    for name, calibration in found.shipped.calibration.items():
        figures[name] |= {key: calibration[key] for key in ("ece_before", "ece_after")}
    bootstrap = Bootstrap(len(found.shipped.users))
    for better, worse in GAINS:
        gain = bootstrap.compare(_per_user(results[better]), _per_user(results[worse]))
        name = f"gain_over_{worse}"
        figures[better] |= {
            name: gain.difference,
            f"{name}_low": gain.low,
            f"{name}_high": gain.high,
            f"{name}_p_value": gain.p_value,
        }
    ablated = {each.name: {"mllm": each.models["mllm"].metrics} for each in found.ablated}
    return {PROTOCOL: figures, **ablated}


def _per_user(result: ModelResult) -> Any:
    return Ranking(result.ranks, result.num_candidates).per_user()[METRIC]


def _check_bars(models: dict[str, Any]) -> list[Check]:
    auc, error = models[AFTER_SFT]["auc"], models["mllm"]["ece_after"]
    checks: list[Check] = [(PROTOCOL, AFTER_SFT, "auc", str(MIN_AUC), auc, auc >= MIN_AUC)]
    for better, worse in GAINS:
        gain, p_value = (models[better][f"gain_over_{worse}{end}"] for end in ("", "_p_value"))
        asked = f"MRR@5 over {worse} (p = {p_value:.3f})"
        checks.append((PROTOCOL, better, asked, "above 0", gain, gain > 0))
    bar = f"{MAX_CALIBRATION_ERROR} at most"
    held = error <= MAX_CALIBRATION_ERROR
    return [*checks, (PROTOCOL, "mllm", "calibration error", bar, error, held)]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench evaluate-demo")
    parser.add_argument("--data", help="where artifacts and reports are kept; else nowhere")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    return parser.parse_args(arguments)
