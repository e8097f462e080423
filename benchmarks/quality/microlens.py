"""Does the road hold on real data, and does a killed step end with the same bytes?

    msr bench microlens FOLDER [--users 300] [--work FOLDER] [--seed 0]

Runs prepare-catalogue, summarize-images (text-only items), build-preferences, fit-retrieval and
build-examples on the MicroLens-50k files: each step once undisturbed, and once killed by SIGKILL at
a random moment and started again. Compares the two data folders byte by byte, then serves one of
the users. FOLDER is MSR_MICROLENS if left out; `--made-up` takes a small catalogue in the same
format instead.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import microlens_files
from benchmarks.support.msr_process import digest_tree, killed_and_resumed, msr, serving
from benchmarks.support.runner import markdown
from clients.python import MsrClient
from services.core.artifacts import Artifact

QUICK = ("--made-up", "--users", "10")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds and peak memory of each step, whether it was killed in the middle, equal bytes."""
    options = _options(arguments)
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        folder = microlens_files.folder(options, Path(work))
        whole, killed = Path(work) / "whole", Path(work) / "killed"
        steps: dict[str, Any] = {}
        for name, rest in _steps(folder, options.users).items():
            done = msr(name, "--data", str(whole), *rest)
            _, was_running = killed_and_resumed(
                (name, "--data", str(killed), *rest), done.seconds, draw
            )
            steps[name] = {
                **done.result,
                "wall_seconds": round(done.seconds, 1),
                "peak_gb": round(done.peak_bytes / 1e9, 2),
                "killed_while_running": was_running,
                "same_bytes": digest_tree(whole) == digest_tree(killed),
            }
        user_id = Artifact(str(whole), "preferences").read(["user_id"])["user_id"][0].as_py()
        with serving(whole) as url, MsrClient(url, timeout_seconds=60) as client:
            answer = client.recommend(user_id, k=5, timeout_seconds=60)
    return {
        "steps": steps,
        "recommended": len(answer.items),
        "degraded": answer.degraded,
        "scored_by_model": sum(item.probability is not None for item in answer.items),
    }


def table(figures: dict[str, Any]) -> str:
    """One row a step."""
    rows = [
        (
            name,
            f"{step['wall_seconds']:.1f}",
            f"{step['peak_gb']:.2f}",
            "yes" if step["killed_while_running"] else "no",
            "yes" if step["same_bytes"] else "NO",
            ", ".join(
                f"{key} {step[key]:,}"
                for key in ("users", "items", "interactions", "summaries", "blocks", "quarantined")
                if key in step
            ),
        )
        for name, step in figures["steps"].items()
    ]
    shown = f"{figures['recommended']} items, {figures['scored_by_model']} scored by the model"
    rows.append(("POST /recommend", "", "", "", "", shown))
    header = ("step", "seconds", "peak GB", "killed in the middle", "same bytes after", "counts")
    return markdown(header, rows)


def _steps(folder: str, num_users: int) -> dict[str, list[str]]:
    return {
        "prepare-catalogue": ["--microlens", folder],
        "summarize-images": [],
        "build-preferences": ["--users", str(num_users)],
        "fit-retrieval": [],
        "build-examples": [],
    }


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench microlens")
    microlens_files.add_options(parser)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--work", help="where the two data folders lie while it runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    return parser.parse_args(arguments)
