"""`msr demo-model` trains the shipped demo weights from scratch: three hours on 2 cores.

    1 base      trained from scratch (`train_base.py`) and measured on the demo world
    2 adapter   the ordinary commands on a training world: prepare-catalogue, summarize-images,
                build-preferences, build-examples, train; the base writes every text. Stage sft
                gives `adapter-sft`, stage rank continues it, and stage harden continues that and
                gives `adapter`, which is served. Stage dpo is trained for comparison. The adapters
                of dpo and rank are not shipped
    3 evaluate  on the demo world's catalogue: every adapter, then ablations of the served one (no
                adapter, blank covers, another user's preference)

Commands run as a user would type them. A killed run resumes: the base with its unfinished stage,
every other step with its last shard or checkpoint.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from model_training.demo import train_base
from model_training.demo.checkpoint import WEIGHTS_FILE
from model_training.demo.measure import measure_checkpoint
from model_training.demo.world import DEMO_SEED, IMAGE_SIZE, NUM_ITEMS, DemoWorld, write_files
from services.core.errors import ModelUnusable

WEIGHTS = Path(__file__).parent / "weights"
CONFIGS = Path(__file__).parent.parent / "configs"

TRAINING_SEED = 11
NUM_TRAINING_ITEMS = 2_000
NUM_TRAINING_USERS = 3_000
# The demo world with its 500 users and more of the same kind behind them, so that the test users
# (a tenth of all) are enough for two digits.
NUM_EVALUATION_USERS = 2_000

# The shares of correct answers that a base must reach before an adapter is trained.
BARS = {
    "summary_palette": 0.97,
    "summary_topic": 0.97,
    "summary_style": 0.93,
    "summary_mood": 0.97,
    "preference_dominant": 0.95,
}


def run(work: str, output: Path | None = None) -> dict[str, Any]:
    """Train base and adapter into `output` (default: where they are shipped) and score them.

    `work` is the folder of intermediate files. Returns the shares of `measure` and the metrics of
    each evaluation. Raises ModelUnusable if the base misses a bar or a command fails.
    """
    work_folder, weights = Path(work), output or WEIGHTS
    work_folder.mkdir(parents=True, exist_ok=True)

    # --- 1 base -----------------------------------------------------------------------------------
    base = weights / "base"
    trained = work_folder / "base"
    if not (trained / WEIGHTS_FILE).exists():
        train_base.run(trained)
    shutil.copytree(trained, base, dirs_exist_ok=True)
    quality = asyncio.run(measure_checkpoint(str(base), DemoWorld())).scores
    print(json.dumps({"base": quality}), flush=True)
    for name, bar in BARS.items():
        if quality[name] < bar:
            raise ModelUnusable(
                f"the base in {trained} has {name} {quality[name]:.3f}, below {bar}; delete the "
                "folder to train it again, with more steps"
            )

    # --- 2 adapter --------------------------------------------------------------------------------
    training = work_folder / "training"
    _prepare(training, base, TRAINING_SEED, NUM_TRAINING_ITEMS, NUM_TRAINING_USERS)
    _msr("build-examples", "--data", training)
    sft, served = weights / "adapter-sft", weights / "adapter"
    rank, dpo = work_folder / "adapter-rank", work_folder / "adapter-dpo"
    fitted = {"sft": _train(training, base, "demo.yaml", "--output", sft)}
    for stage, start, output in (("rank", sft, rank), ("harden", rank, served), ("dpo", sft, dpo)):
        options = ("--stage", stage, "--start-adapter", start, "--output", output)
        fitted[stage] = _train(training, base, f"demo-{stage}.yaml", *options)

    # --- 3 evaluate -------------------------------------------------------------------------------
    held_out = work_folder / "held-out"
    _prepare(held_out, base, DEMO_SEED, NUM_ITEMS, NUM_EVALUATION_USERS)
    evaluations = {
        name: _msr("evaluate", "--data", held_out, "--model", base, *options)
        for name, options in {
            "adapter": ("--adapter", served),
            "sft": ("--adapter", sft, "--models", "mllm"),
            "rank": ("--adapter", rank, "--models", "mllm"),
            "dpo": ("--adapter", dpo, "--models", "mllm"),
            "no_adapter": ("--adapter", "none", "--models", "mllm"),
            "blank_covers": ("--adapter", served, "--models", "mllm", "--ablate", "cover"),
            "other_preference": ("--adapter", served, "--models", "mllm", "--ablate", "user"),
        }.items()
    }
    scores = {"base": quality, "training": fitted, **evaluations}
    (work_folder / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def _prepare(data: Path, base: Path, seed: int, num_items: int, num_users: int) -> None:
    """Steps 1 to 3 of the data flow on a world of its own; the base writes every text."""
    world = data / "demo-world"
    if not world.exists():
        write_files(world, seed=seed, num_items=num_items, num_users=num_users)
    _msr("prepare-catalogue", "--catalogue", world, "--image-size", IMAGE_SIZE, "--data", data)
    _msr("summarize-images", "--data", data, "--model", base, "--adapter", "none")
    _msr("build-preferences", "--data", data, "--model", base, "--adapter", "none")


def _train(data: Path, base: Path, config: str, *options: object) -> dict[str, Any]:
    return _msr("train", "--data", data, "--config", CONFIGS / config, "--model", base, *options)


def _msr(command: str, *options: object) -> dict[str, Any]:
    """Run one command of `msr`; what it reports. Progress goes to the terminal as usual."""
    print(f"msr {command} {' '.join(map(str, options))}", flush=True)
    arguments = [sys.executable, "-m", "services.cli", command, *map(str, options), "--json"]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ModelUnusable(f"`msr {command}` ended with status {done.returncode}; see above")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(report), flush=True)
    return report
