"""Does the demo model work, or does it pose?

    msr bench demo-scores [--data FOLDER] [--users 500] [--items 480]

On the demo world, which the model never saw, with every text written by the model itself: how many
attributes its summaries name rightly, how many dominant attributes of a history its preferences
name, and how well the adapter ranks held-out targets, beside the base without it and with what it
needs taken away (blank covers, no preference, another user's preference).
"""

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.support import demo_catalogue
from benchmarks.support.runner import markdown
from model_training.demo.attributes import ATTRIBUTE_NAMES
from model_training.demo.measure import share_named, share_of_dominant_named
from model_training.demo.world import NUM_ITEMS, NUM_USERS, DemoWorld
from model_training.evaluation import evaluate
from model_training.evaluation.results import MODELS, Evaluation
from model_training.scoring.score_tasks import Ablation
from services.core.artifacts import Artifact
from services.deployment.assemble import choose_engine
from services.deployment.settings import Settings

# What the model card promises: at least this, or at least this much below the adapter's AUC.
BARS = {
    "summary palette": 0.97,
    "summary topic": 0.97,
    "summary style": 0.93,
    "summary mood": 0.97,
    "preference dominant": 0.95,
    "adapter AUC": 0.90,
    "lost without the adapter": 0.15,
    "lost with blank covers": 0.12,
    "lost without a preference": 0.30,
    "lost with another user's preference": 0.30,
}

QUICK = ("--users", "60", "--items", "60")

# What is taken from the model, and how the table says it.
ABLATED: tuple[Ablation, ...] = ("cover", "preference", "user")
NAMES = {
    "adapter": "adapter",
    "cover": "adapter, blank covers",
    "preference": "adapter, no preference",
    "user": "adapter, another user's preference",
    "no adapter": "no adapter",
}


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Each figure beside its bar, and the whole evaluations."""
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        data = options.data or stack.enter_context(tempfile.TemporaryDirectory())
        world = await demo_catalogue.prepare_items(
            data, num_items=options.items, num_users=options.users
        )
        found = await _evaluate(data)
        texts = _measure_texts(data, world)
    evaluations = {name: evaluation.to_json_dict() for name, evaluation in found.items()}
    auc = {name: evaluation["mllm"]["auc"] for name, evaluation in evaluations.items()}
    measured = texts | {
        "adapter AUC": auc["adapter"],
        "lost without the adapter": auc["adapter"] - auc["no adapter"],
        "lost with blank covers": auc["adapter"] - auc["cover"],
        "lost without a preference": auc["adapter"] - auc["preference"],
        "lost with another user's preference": auc["adapter"] - auc["user"],
    }
    return {
        "figures": {
            name: {"bar": bar, "measured": round(measured[name], 4)} for name, bar in BARS.items()
        },
        "evaluations": evaluations,
    }


def table(figures: dict[str, Any]) -> str:
    """Bars and figures, then AUC, HR@5 and MRR@5 of every ranker."""
    bars = [
        (
            name,
            row["bar"],
            f"{row['measured']:.3f}",
            "yes" if row["measured"] >= row["bar"] else "NO",
        )
        for name, row in figures["figures"].items()
    ]
    adapter = figures["evaluations"]["adapter"]
    rows = [
        (NAMES[name], *(f"{evaluation['mllm'][key]:.3f}" for key in ("auc", "hr@5", "mrr@5")))
        for name, evaluation in figures["evaluations"].items()
    ]
    rows += [
        (name, *(f"{adapter[name][key]:.3f}" for key in ("auc", "hr@5", "mrr@5")))
        for name in adapter
        if name in MODELS and name != "mllm"
    ]
    rankers = markdown(("ranker", "AUC", "HR@5", "MRR@5"), rows)
    return f"{markdown(('figure', 'bar', 'measured', 'reached'), bars)}\n\n{rankers}"


async def _evaluate(data: str) -> dict[str, Evaluation]:
    settings = Settings()
    evaluations = {}
    for adapter in (None, "none"):
        choice = choose_engine(data, settings, kind="local", model=None, adapter=adapter)
        engine = await choice.open()
        try:
            await demo_catalogue.write_texts(data, engine)
            if adapter == "none":
                evaluations["no adapter"] = await evaluate.run(data, engine, models=["mllm"])
                continue
            evaluations["adapter"] = await evaluate.run(data, engine)
            for name in ABLATED:
                evaluations[name] = await evaluate.run(data, engine, models=["mllm"], ablate=name)
        finally:
            await engine.close()
    return evaluations


def _measure_texts(data: str, world: DemoWorld) -> dict[str, float]:
    summaries = _column(data, "summaries", "item_id", "summary")
    preferences = _column(data, "preferences", "user_id", "preference")
    written = [summaries.get(item.item_id, "") for item in world.items]
    truths = [item.attributes for item in world.items]
    shares = {f"summary {name}": share_named(written, truths, name) for name in ATTRIBUTE_NAMES}
    by_user = [preferences.get(user.user_id, "") for user in world.users]
    return shares | {"preference dominant": share_of_dominant_named(world, by_user)}


def _column(data: str, artifact: str, key: str, value: str) -> dict[str, str]:
    rows = Artifact(data, artifact).read([key, value]).to_pydict()
    return dict(zip(rows[key], rows[value], strict=True))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench demo-scores")
    parser.add_argument("--data", help="where artifacts are kept; else nowhere")
    parser.add_argument("--users", type=int, default=NUM_USERS)
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    return parser.parse_args(arguments)
