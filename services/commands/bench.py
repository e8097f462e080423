"""The demo, the demo model, and the benchmarks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.commands.options import AsJson, Data
from services.commands.reporting import report


def demo(
    data: Data = "data/demo",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8000,
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the walk; exit 1 if it failed.")
    ] = False,
) -> None:
    """Prepare the demo world, serve it, and walk through its steps."""
    from services.deployment import demo_walk as step
    from services.process.http_server import run_program
    from services.process.logs import configure

    configure(level=os.environ.get("MSR_LOG_LEVEL", "warning"))  # the walk prints its own text
    if not run_program(step.run(data, port=port, once=once)):
        raise typer.Exit(1)


def demo_model(
    work: Annotated[str, typer.Option(help="Folder for intermediate artifacts.")] = "runs/demo",
    output: Annotated[
        Path | None, typer.Option(help="Where the weights go. Default: the shipped folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the shipped demo model and its adapter again, from nothing (hours on a CPU)."""
    from model_training.demo import train_demo

    report(lambda: train_demo.run(work, output), as_json)


def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A file of benchmarks/, as in `msr bench walk`.")],
    as_json: AsJson = False,
) -> None:
    """Run a benchmark and print its table.

    Every benchmark takes --quick (a short form) and --save (keep the table); its other options are
    its own.
    """
    from benchmarks.support import runner

    figures = report(lambda: runner.run(name, context.args), as_json, timed=False)
    if not (runner.is_quick(context.args) or runner.holds(name, figures)):
        raise typer.Exit(1)
