"""Runs a step for a command and prints its counts, as a table or as one line of JSON."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import typer


def report(step: Callable[[], Any], as_json: bool, *, timed: bool = True) -> dict[str, Any]:
    """Run a step, asynchronous or not; print and return its counts, `timed` with its seconds."""
    started = time.perf_counter()
    result = step()
    if asyncio.iscoroutine(result):
        result = asyncio.run(result)
    if timed:
        result = {**result, "seconds": round(time.perf_counter() - started, 3)}
    if as_json:
        typer.echo(json.dumps(result))
        return dict(result)
    for key, value in result.items():
        if isinstance(value, dict):
            warning = value.get("warning")
            parts = {name: part for name, part in value.items() if name != "warning"}
            shown = "  ".join(f"{name} {_shown(part)}" for name, part in parts.items())
        else:
            warning, shown = None, _shown(value)
        typer.echo(f"{key:>20}  {shown}")
        if warning:  # a sentence, so it gets a line
            typer.echo(f"{'warning':>20}  {warning}")
    return dict(result)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
