"""Steps 1 to 3: catalogue, summaries, preferences."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.options import (
    Adapter,
    AsJson,
    CutName,
    Data,
    EngineName,
    EngineOption,
    Estimate,
    Model,
    Ray,
    RayWorkers,
    Retry,
    Urls,
    engine_choice,
    with_engine,
)
from services.commands.reporting import report
from services.core.errors import InputError


def prepare_catalogue(
    data: Data = "data",
    demo: Annotated[bool, typer.Option("--demo", help="The synthetic demo world.")] = False,
    microlens: Annotated[
        Path | None, typer.Option(help="Folder with *_pairs.tsv|csv, *_titles.csv, covers.")
    ] = None,
    amazon: Annotated[
        Path | None, typer.Option(help="Folder with Amazon Reviews 2023 files.")
    ] = None,
    category: Annotated[str | None, typer.Option(help="Category of the Amazon files.")] = None,
    catalogue: Annotated[
        Path | None, typer.Option(help="Folder with items and interactions as CSV or Parquet.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of prepared covers in pixels; else 336 (demo: 56).")
    ] = None,
    min_user_interactions: Annotated[int | None, typer.Option(help="k-core of users.")] = None,
    min_item_interactions: Annotated[int | None, typer.Option(help="k-core of items.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Keep the first N users only.")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Fetch covers from this host too; repeatable.")
    ] = None,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """1. Read items, covers and interactions; filter, order and prepare them."""
    from services.batch import prepare_catalogue as step

    source, natural_size = _source(data, demo, microlens, amazon, category, catalogue)
    options: dict[str, Any] = {
        "data": data,
        "image_size": image_size or natural_size,
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "num_users": users,
    }
    if estimate:
        report(lambda: step.estimate(source, **options), as_json)
    else:
        options |= {
            "retry_quarantined": retry_quarantined,
            "allowed_hosts": tuple(allow_host or ()),
        }
        report(lambda: step.run(source, **options), as_json)


def summarize_images(
    data: Data = "data",
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    url: Urls = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """2. Describe every item in one sentence, by the multimodal LLM."""
    from services.batch import summarize_images as step

    def work(opened: Any) -> Awaitable[Any]:
        if estimate:
            return step.estimate(data, opened)
        return step.run(data, opened, retry_quarantined=retry_quarantined)

    choice = _writer_choice(data, engine, model, adapter, url, on_ray=ray is not None)
    report(lambda: with_engine(work, choice, ray=ray, ray_workers=ray_workers), as_json)


def build_preferences(
    data: Data = "data",
    direct: Annotated[
        bool, typer.Option("--direct", help="One prompt over the history, for comparison.")
    ] = False,
    users: Annotated[int | None, typer.Option(min=1, help="The first N users only.")] = None,
    cut: Annotated[
        CutName,
        typer.Option(
            help="`last` for training and evaluation, `none` for serving, `popular` to evaluate "
            "under protocol `paper`."
        ),
    ] = CutName.last,
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    url: Urls = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    estimate: Estimate = False,
    retry_quarantined: Retry = False,
    as_json: AsJson = False,
) -> None:
    """3. Write every user's preference, block after block."""
    from services.batch import build_preferences as step

    def work(opened: Any) -> Awaitable[Any]:
        if estimate:
            return step.estimate(data, opened, cut=cut.value, direct=direct, num_users=users)
        return step.run(
            data,
            opened,
            cut=cut.value,
            direct=direct,
            num_users=users,
            retry_quarantined=retry_quarantined,
        )

    choice = _writer_choice(data, engine, model, adapter, url, on_ray=ray is not None)
    report(lambda: with_engine(work, choice, ray=ray, ray_workers=ray_workers), as_json)


def _writer_choice(
    data: str,
    engine: EngineName,
    model: str | None,
    adapter: str | None,
    urls: list[str] | None,
    *,
    on_ray: bool,
) -> Any:
    """The engine of a step that only writes: texts are the base model's, so no adapter is looked
    for unless one is named.
    """
    return engine_choice(data, engine, model, adapter or "none", urls, on_ray=on_ray)


def _source(
    data: str,
    demo: bool,
    microlens: Path | None,
    amazon: Path | None,
    category: str | None,
    catalogue: Path | None,
) -> tuple[Any, int]:
    """The one data set asked for, and the cover size that suits it."""
    from services.batch.readers.amazon import Amazon
    from services.batch.readers.microlens import MicroLens
    from services.batch.readers.plain import Plain
    from services.core.images import DEFAULT_IMAGE_SIZE

    if sum((demo, microlens is not None, amazon is not None, catalogue is not None)) != 1:
        raise InputError("name one data set: --demo, --microlens, --amazon or --catalogue")
    if demo:
        from model_training.demo.world import IMAGE_SIZE
        from services.deployment.demo_walk import open_demo_world

        return open_demo_world(data), IMAGE_SIZE
    if amazon is not None:
        if category is None:
            raise InputError("--amazon needs --category, as in Video_Games.jsonl")
        return Amazon(amazon, category), DEFAULT_IMAGE_SIZE
    if microlens is not None:
        return MicroLens(microlens), DEFAULT_IMAGE_SIZE
    assert catalogue is not None
    return Plain(catalogue), DEFAULT_IMAGE_SIZE
