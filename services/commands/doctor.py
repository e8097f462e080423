"""`msr doctor`: checks what a deployment needs; exit status 1 if there is a problem."""

import json
import os
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.options import AsJson, Data, EngineArguments, with_groups
from services.commands.training import CONFIGS
from services.core.errors import MsrError
from services.process.step_packages import NEEDED

_SHOWN = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
_SECONDS, _STEP_SECONDS = 30.0, 300.0


def _a_step(value: str) -> str:
    if value not in NEEDED:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(NEEDED)}")
    return value


@with_groups
def doctor(
    context: typer.Context,
    data: Data = "data",
    host: Annotated[str, typer.Option(envvar="MSR_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="MSR_PORT")] = 8000,
    steps: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            parser=_a_step,
            metavar=f"[{'|'.join(NEEDED)}]",
            help="A step that is to run here: what it lacks is a problem. May be repeated.",
        ),
    ] = None,
    config: Annotated[
        Path, typer.Option(help="With --for train: the experiment file that would be trained.")
    ] = CONFIGS / "default.yaml",
    *,
    engine: EngineArguments,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, help="Seconds for each check. Default: 30; with --for 300."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Show so many images beside their texts, as a page in the data."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, GPU, disk, data, texts, adapter, model servers, Redis and port for
    `msr serve` with the same options, and the packages of other steps; say what to do about each
    fault.
    """
    from pydantic import ValidationError

    from services.deployment.settings import Settings
    from services.doctor import artifacts, machine, service, texts
    from services.doctor import steps as of_steps
    from services.doctor.findings import Check, run_checks

    fault: ValidationError | MsrError | None = None
    try:
        settings = Settings()
    except (ValidationError, MsrError) as error:
        settings, fault = Settings.model_construct(redis_url=None), error
    folders = {"data": data}
    if settings.redis_url is None:
        folders["state"] = settings.state or str(Path(data) / "state")
    options = _variables(context.find_root().command)
    # Returns the engine, or raises the reason why there is none.
    choose = partial(engine.choose, data, settings)
    checks: dict[str, Check] = {  # a part comes after the parts that it needs
        "python": machine.check_python,
        "packages": machine.check_packages,
        "steps": partial(of_steps.check_steps, steps or (), config),
        "settings": partial(service.check_settings, os.environ, options, fault),
        "gpu": machine.check_gpu,
        "disk": partial(machine.check_disk, folders),
        "data": partial(artifacts.check_data, data),
        "texts": partial(texts.check_texts, data),
        "model": partial(
            texts.check_model,
            data,
            partial(service.identify_served, choose),
            lambda: settings.sampling,
        ),
        "adapter": partial(artifacts.check_adapter, data, choose, settings.adapters),
        "writer": partial(service.check_writer, choose),
        "model server": partial(service.check_model_servers, data, choose),
        "redis": partial(service.check_redis, data, settings),
        "port": partial(machine.check_port, host, port),
    }
    sampled: list[texts.SampledItem] = []
    if sample is not None:
        checks["sample"] = partial(texts.check_sample, data, sample, sampled)
    findings = []
    # A step that was asked for imports its packages, which takes long after an installation.
    seconds = timeout or (_STEP_SECONDS if steps else _SECONDS)
    for finding in run_checks(checks, timeout_seconds=seconds):
        findings.append(finding)
        if not as_json:
            _show(finding)
    counts = Counter(finding.status for finding in findings)
    if as_json:
        found: dict[str, Any] = {"checks": [asdict(finding) for finding in findings]}
        if sample is not None:
            found["sample"] = [_as_row(item) for item in sampled]
        numbers = {"problems": counts["problem"], "notes": counts["note"]}
        typer.echo(json.dumps({**found, **numbers}))
    else:
        for item in sampled:
            row = _as_row(item)
            typer.echo(f"  {row['title']}\n    {row['summary'] or row['fault']}")
        typer.echo(f"\n{counts['problem']} problem(s), {counts['note']} note(s)")
    if counts["problem"]:
        raise typer.Exit(1)


def _show(finding: Any) -> None:
    typer.echo(f"{_SHOWN[finding.status]}  {finding.check:<12}  {finding.found}")
    if finding.remedy:
        typer.echo(f"{'':<23}-> {finding.remedy}")


def _as_row(item: Any) -> dict[str, Any]:
    """A sampled item without its pixels. Texts are strangers': a terminal must not obey them."""
    texts = {"item_id": item.item_id, "title": item.title, "summary": item.summary}
    plain = {
        name: "".join(c if c.isprintable() else " " for c in text)
        for name, text in {**texts, "fault": item.fault}.items()
    }
    return {**plain, "has_image": bool(item.image)}


def _variables(command: Any) -> set[str]:
    """The environment variables that set options of `msr`."""
    own = {option.envvar for option in command.params if isinstance(option.envvar, str)}
    return own.union(*(_variables(each) for each in getattr(command, "commands", {}).values()))
