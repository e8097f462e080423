"""Steps 1 to 3: catalogue, summaries, preferences."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from services.batch.readers.table import READERS
from services.commands.options import (
    AsJson,
    BatchEngineArguments,
    Data,
    Estimate,
    Retry,
    settings,
    with_groups,
)
from services.commands.reporting import report
from services.core.errors import InputError
from services.core.images import DEFAULT_IMAGE_SIZE, Fit, ImageForm
from services.core.splits import Cut

# Of the rows that a table's reader left out.
_NUM_EXAMPLES = 3

# Said at the very first step, before hours of texts that mean nothing.
_NEXT_MODEL = (
    "The next steps write texts with the demo model, which knows its own drawn world only, unless "
    "--model or MSR_MODEL names a published one (docs/gpu.md)."
)


def with_reader_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the table of readers; it gets them as `given`."""
    options: list[tuple[str, Any, Any]] = []
    for reader in READERS:
        folder = Annotated[Path | None, typer.Option(f"--{reader.name}", help=reader.help)]
        options.append((reader.name, folder, None))
        for name, text in reader.options.items():
            options.append(
                (name, Annotated[str | None, typer.Option(f"--{name}", help=text)], None)
            )
    command.__annotations__["given"] = make_dataclass("ReaderOptions", options)
    return with_groups(command)


@with_reader_options
def prepare_catalogue(
    data: Data = "data",
    demo: Annotated[bool, typer.Option("--demo", help="The synthetic demo world.")] = False,
    *,
    given: Any,
    fit: Annotated[
        Fit,
        typer.Option(
            help="`square`: each cover in a square of one size. `grid`: each in that of a few "
            "shapes of --model that shows most of it for each image token."
        ),
    ] = "square",
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side of prepared images in pixels. Default: 336 (demo: 56). For grid: the side "
            "of a tile, or of a square of as many pixels; default: the model's own.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="For --fit grid: the checkpoint folder or hub name whose image shapes are taken. "
            "Default with --demo: the demo model."
        ),
    ] = None,
    min_user_interactions: Annotated[
        int | None, typer.Option(help="Interactions that a user needs (k-core).")
    ] = None,
    min_item_interactions: Annotated[
        int | None, typer.Option(help="Interactions that an item needs (k-core).")
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Keep only the first N users.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Download covers from this host too; repeatable.")
    ] = None,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """1. Read items, covers and interactions; filter, order and prepare them."""
    from services.batch import prepare_catalogue as step

    form = _image_form(fit, image_size, model, demo=demo)
    source = _open_source(data, demo, vars(given))
    options: dict[str, Any] = {
        "data": data,
        "form": form,
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "num_users": users,
    }
    if estimate:
        report(lambda: step.estimate(source, **options), as_json)
    else:
        if not demo and not os.environ.get("MSR_MODEL"):
            typer.echo(_NEXT_MODEL, err=True)
        options |= {
            "retry_quarantined": retry_quarantined,
            "allowed_hosts": tuple(allow_host or ()),
        }
        report(lambda: step.run(source, **options), as_json)
        _tell_left_out(data)


def _tell_left_out(data: str) -> None:
    """The first rows that each artifact left out, with the reasons; its manifest has more."""
    from services.core.artifacts import MANIFEST, Artifact

    for name in ("items", "interactions"):
        artifact = Artifact(data, name)
        manifest = artifact.manifest()
        for fault in manifest.quarantined[:_NUM_EXAMPLES]:
            typer.echo(f"left out: {fault['row']}: {fault['reason']}", err=True)
        if manifest.num_quarantined > _NUM_EXAMPLES:
            location = f"{artifact.location}/{MANIFEST}"
            typer.echo(f"left out: {manifest.num_quarantined:,} in all, see {location}", err=True)


@with_groups
def summarize_images(
    data: Data = "data",
    *,
    engine: BatchEngineArguments,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """2. Let the multimodal LLM describe every item in one sentence."""
    from services.batch import summarize_images as step

    def work(opened: Any) -> Awaitable[Any]:
        if estimate:
            return step.estimate(data, opened)
        return step.run(data, opened, retry_quarantined=retry_quarantined)

    report(lambda: engine.for_texts().run(data, work), as_json)


@with_groups
def build_preferences(
    data: Data = "data",
    direct: Annotated[
        bool, typer.Option("--direct", help="One prompt over the history, for comparison.")
    ] = False,
    users: Annotated[int | None, typer.Option(min=1, help="Only the first N users.")] = None,
    cut: Annotated[
        Cut,
        typer.Option(
            help="`last` for training and evaluation, `none` for serving, `popular` to evaluate "
            "under protocol `paper`."
        ),
    ] = "last",
    *,
    engine: BatchEngineArguments,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """3. Write every user's preference, block after block."""
    from services.batch import build_preferences as step

    sampling = settings().sampling

    def work(opened: Any) -> Awaitable[Any]:
        if estimate:
            return step.estimate(
                data, opened, cut=cut, direct=direct, num_users=users, sampling=sampling
            )
        return step.run(
            data,
            opened,
            cut=cut,
            direct=direct,
            num_users=users,
            retry_quarantined=retry_quarantined,
            sampling=sampling,
        )

    report(lambda: engine.for_texts().run(data, work, preferences=True), as_json)


def _image_form(fit: Fit, size: int | None, model: str | None, *, demo: bool) -> ImageForm:
    """The form that these options ask for; without a size, what suits the data set or the model."""
    if fit == "square":
        if model is not None:
            raise InputError("--model names whose image shapes are taken; give it with --fit grid")
        if size is None and demo:
            from model_training.demo.world import IMAGE_SIZE

            size = IMAGE_SIZE
        return ImageForm(DEFAULT_IMAGE_SIZE if size is None else size)
    if model is None and not demo:
        raise InputError(
            "--fit grid needs the model whose image shapes are taken; name it with --model, or use "
            "--fit square"
        )
    from services.deployment.assemble import DEMO_WEIGHTS
    from services.engines.models.image_shapes import find_form

    return find_form(model or str(DEMO_WEIGHTS / "base"), size)


def _open_source(data: str, demo: bool, given: Mapping[str, Any]) -> Any:
    """The one data set asked for."""
    readers = [reader for reader in READERS if given[reader.name] is not None]
    if len(readers) + demo != 1:
        names = ["--demo", *(f"--{reader.name}" for reader in READERS)]
        raise InputError(f"name one data set: {', '.join(names)}")
    if demo:
        from services.deployment.demo_walk import open_demo_world

        return open_demo_world(data)
    return readers[0].open(given[readers[0].name], given)
