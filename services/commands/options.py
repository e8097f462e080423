"""Options that several commands share, and the engine that the engine options choose.

A dataclass is a group of options: `with_groups` gives a command an option for each of its fields.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from itertools import zip_longest
from typing import Annotated, Any

import typer

from services.core.errors import InputError
from services.engines.models.model_files import is_folder
from services.engines.open_engine import ENGINES, find_engine


def _engine_kind(value: str) -> str:
    if value not in ENGINES:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(ENGINES)}")
    return value


def a_checkpoint(model: str | None) -> str | None:
    """For `callback` of an option: ModelUnusable for a folder that is not there, before a step is
    imported, which takes seconds.
    """
    if model is not None:
        is_folder(model)
    return model


Data = Annotated[str, typer.Option(help="Folder (or fsspec URL) of artifacts.", envvar="MSR_DATA")]
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


AcceptOtherTexts = Annotated[
    bool,
    typer.Option(
        "--accept-other-texts",
        envvar="MSR_ACCEPT_OTHER_TEXTS",
        help="Start although another model wrote the texts: they are served, marked as such, and "
        "written anew by the worker.",
    ),
]


def settings() -> Any:
    """The settings of the environment."""
    from pydantic import ValidationError

    from services.deployment.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        raise InputError(f"the environment has a setting that cannot be used: {error}") from error


@dataclass(frozen=True)
class EngineArguments:
    """The engine, model and adapter that a command uses."""

    engine: Annotated[
        str,
        typer.Option(
            envvar="MSR_ENGINE",
            parser=_engine_kind,
            metavar=f"[{'|'.join(ENGINES)}]",
            help="Where the model runs: in this process, or on vLLM servers.",
        ),
    ] = "local"
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint folder or hub name; default: the demo model. With a vLLM server the "
            "model's name; default: the one it serves.",
            envvar="MSR_MODEL",
        ),
    ] = None
    adapter: Annotated[
        str | None,
        typer.Option(
            help="Adapter folder; default: the data folder's adapter, or the demo adapter on the "
            "demo model. With a vLLM server the adapter's name; default: the one it serves. "
            "`none`: the base model alone.",
            envvar="MSR_ADAPTER",
        ),
    ] = None
    url: Annotated[
        list[str] | None,
        typer.Option(help="A vLLM server; repeat for replicas. Default: MSR_VLLM_URLS."),
    ] = None

    def choose(self, data: str, given: Any) -> Any:
        """The `deployment.EngineChoice` that these options and the settings make."""
        if find_engine(self.engine).from_checkpoint:
            a_checkpoint(self.model)
        from services.deployment.assemble import choose_engine

        if self.url:
            given = given.model_copy(update={"vllm_urls": tuple(self.url)})
        return choose_engine(data, given, kind=self.engine, model=self.model, adapter=self.adapter)


@dataclass(frozen=True)
class BatchEngineArguments(EngineArguments):
    """The engine of an offline step, which may be one on each of several Ray workers."""

    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Spread the shards over a Ray cluster: the one at this address; default: the one "
            "of this machine, or a new one. Every node must see the data folder.",
        ),
    ] = None
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Ray workers, each with an engine. Default: one a GPU, or one a node."
        ),
    ] = None

    def for_texts(self) -> "BatchEngineArguments":
        """For a step that writes texts: the base model, unless an adapter is named."""
        return replace(self, adapter=self.adapter or "none")

    async def run(
        self, data: str, work: Callable[[Any], Awaitable[Any]], *, preferences: bool = False
    ) -> Any:
        """Call `work` with the engine, or with its Ray workers if `ray` is given; close it after.

        While no server answers, the step's prompts wait. `preferences`: the writer's engine, if the
        settings name one.
        """
        given, options = settings(), self
        if self.ray is not None and self.engine == "vllm" and not (self.url or given.vllm_urls):
            options = replace(self, engine="vllm-in-process")  # without a server, in the workers
        if preferences and (given.writer or given.writer_urls):
            options = replace(options, model=None)  # it is not loaded, and need not be there
        choice = options.choose(data, given)
        if preferences:
            choice = choice.for_preferences()
        if self.ray is None:
            if self.ray_workers is not None:
                raise InputError("--ray-workers needs --ray")
            opened = await choice.open(for_batch=True)
        else:
            from services.sharding.ray_workers import RayWorkers

            opened = await RayWorkers.start(
                choice.opener(for_batch=True),
                await choice.identify(),
                address=self.ray,
                num_workers=self.ray_workers,
                uses_gpu=not choice.on_servers,
            )
        try:
            return await work(opened)
        finally:
            await opened.close()


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Unfold dataclasses among a command's parameters: one option for each of their fields."""
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[parameter.name] = group
            options += inspect.signature(group).parameters.values()
        else:
            options.append(parameter)

    @wraps(command)
    def unfolded(**values: Any) -> None:
        folded = {
            name: group(**{each.name: values.pop(each.name) for each in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **folded)

    by_name = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    setattr(unfolded, "__signature__", inspect.Signature(by_name))  # noqa: B010
    unfolded.__annotations__ = {option.name: option.annotation for option in options}
    return unfolded
