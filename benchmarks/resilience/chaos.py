"""Is an interaction ever lost, applied twice, or taken out of order, whatever is killed?

    msr bench chaos [--interactions 10000] [--users 500] [--kills 50] [--restarts 3] [--seed 0]

`msr serve --no-worker` with the demo model and two workers run as processes on a Redis of their
own, whose network can be cut. 20 % of the interactions are delivered twice, 10 % late, and every
batch is shuffled. During the delivery workers, API and Redis are killed by SIGKILL and started
again, and the network is cut: loudly, or so that what was under way arrives late. At the end every
user's history, blocks and preference are compared with the offline recurrence. Exit status 1, and
the interactions concerned on stderr, if anything differs.

The workers write by a digest of the prompt instead of a model: any difference in what is taken in
changes the text, and ten thousand interactions take minutes on two cores (faults/worker.py). Redis
syncs every write before it answers it (faults/programs.py says what `everysec` would lose).
Strikes and deliveries follow from the seed; which instruction a kill hits does not.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults import chaos_run
from benchmarks.support.runner import markdown

QUICK = (
    *("--interactions", "300", "--users", "20", "--batch-size", "20"),
    *("--kills", "2", "--restarts", "1", "--api-kills", "1", "--cuts", "1"),
)


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """How many interactions were lost or applied twice, how many users differ, what was killed."""
    options = _options(arguments)
    plan = chaos_run.Plan(
        interactions=options.interactions,
        users=options.users,
        kills=options.kills,
        restarts=options.restarts,
        api_kills=options.api_kills,
        cuts=options.cuts,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = await chaos_run.run(plan, Path(folder))
    seconds = round(time.perf_counter() - started, 1)
    return {**outcome.figures, "seed": options.seed, "seconds": seconds}


def table(figures: dict[str, Any]) -> str:
    """One row a figure."""
    rows = [(name.replace("_", " "), _shown(figure)) for name, figure in figures.items()]
    return markdown(("what", "count"), rows)


def holds(figures: dict[str, Any]) -> bool:
    """Whether every interaction had effect once."""
    return not any(figures[each] for each in ("lost", "applied_twice", "preferences_differ"))


def _shown(figure: Any) -> str:
    if isinstance(figure, dict):
        return ", ".join(f"{name}: {count:,}" for name, count in figure.items())
    return f"{figure:,}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench chaos")
    parser.add_argument("--interactions", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--kills", type=int, default=50, help="of workers")
    parser.add_argument("--restarts", type=int, default=3, help="of Redis")
    parser.add_argument("--api-kills", type=int, default=4)
    parser.add_argument("--cuts", type=int, default=6, help="of the network")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)
