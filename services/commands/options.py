"""Options that several commands share, and the engine that the engine options choose."""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any

import typer

from services.core.errors import InputError
from services.engines.open_engine import ENGINES


def _engine_kind(value: str) -> str:
    if value not in ENGINES:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(ENGINES)}")
    return value


class CutName(StrEnum):
    """The cuts of `core/splits.py`: which part of a history is visible."""

    last = "last"
    popular = "popular"
    none = "none"


Data = Annotated[str, typer.Option(help="Folder (or fsspec URL) of artifacts.", envvar="MSR_DATA")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="MSR_ENGINE",
        parser=_engine_kind,
        metavar=f"[{'|'.join(ENGINES)}]",
        help="Where the model runs: in this process, or on vLLM servers.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint folder or hub name; default: the demo model. With a vLLM server the "
        "model's name; default: the one it serves.",
        envvar="MSR_MODEL",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        help="Adapter folder; default: the data folder's adapter, or the demo adapter on the demo "
        "model. With a vLLM server the adapter's name; default: the one it serves. `none`: the "
        "base model alone.",
        envvar="MSR_ADAPTER",
    ),
]
Urls = Annotated[
    list[str] | None,
    typer.Option("--url", help="A vLLM server; repeat for replicas. Default: MSR_VLLM_URLS."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Spread the shards over a Ray cluster: the one at this address; default: the one of "
        "this machine, or a new one. Every node must see the data folder.",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Ray workers, each with an engine. Default: one a GPU, or one a node."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Estimate = Annotated[
    bool, typer.Option("--estimate", help="Print what a run would cost, and stop.")
]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try quarantined rows again.")]


# For the commands that call a running API.
ApiUrl = Annotated[str, typer.Option("--url", help="Address of the API.", envvar="MSR_URL")]
ApiKeyOption = Annotated[
    str | None,
    typer.Option("--key", help="API key, if the API requires one.", envvar="MSR_API_KEY"),
]
HERE = "http://127.0.0.1:8000"

# Options whose value may be left out, which typer does not support.
_VALUE_OPTIONAL = ("--ray",)


def with_values(arguments: Sequence[str]) -> list[str]:
    """The command line with an empty value for each optional value that was left out."""
    filled: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="-"):
        filled.append(argument)
        if argument in _VALUE_OPTIONAL and following.startswith("-"):
            filled.append("")
    return filled


def settings(**given: Any) -> Any:
    """The settings of the environment; those given here take precedence."""
    from pydantic import ValidationError

    from services.deployment.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        raise InputError(f"the environment has a setting that cannot be used: {error}") from error


def engine_choice(
    data: str,
    engine: str,
    model: str | None,
    adapter: str | None,
    urls: list[str] | None,
    *,
    on_ray: bool = False,
) -> Any:
    """The `deployment.EngineChoice` that the engine options of a command make.

    On Ray, vLLM without a server runs in the workers.
    """
    from services.deployment.assemble import choose_engine

    given = settings() if not urls else settings(vllm_urls=tuple(urls))
    if on_ray and engine == "vllm" and not given.vllm_urls:
        engine = "vllm-in-process"
    return choose_engine(data, given, kind=engine, model=model, adapter=adapter)


async def with_engine(
    work: Callable[[Any], Awaitable[Any]],
    choice: Any,
    *,
    ray: str | None = None,
    ray_workers: int | None = None,
) -> Any:
    """Open the engine for a batch step, or its Ray workers if `ray` is given; close it after.

    While no server answers, the step's prompts wait.
    """
    if ray is None:
        if ray_workers is not None:
            raise InputError("--ray-workers needs --ray")
        opened = await choice.open_for_batch()
    else:
        from services.sharding.ray_workers import RayWorkers

        opened = await RayWorkers.start(
            choice.batch_opener(),
            await choice.identify(),
            address=ray,
            num_workers=ray_workers,
            uses_gpu=not choice.on_servers,
        )
    try:
        return await work(opened)
    finally:
        await opened.close()
