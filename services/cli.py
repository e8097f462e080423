"""`msr`, the one command: a subcommand for every step of the data flow, in its order.

Each command is thin: it reads options, calls the step's `run`, and reports. Steps are imported when
they run, so that `msr --help` is quick and a server does not load what only training needs.
With `--json` the last line on stdout is one JSON object with the counts and `seconds`.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from services.core.errors import InputError, MsrError

try:
    import typer
except ImportError:
    sys.exit("`msr` needs more than a client does: pip install 'msr[serve]'")

CONFIGS = Path(__file__).parent.parent / "model_training" / "configs"

app = typer.Typer(
    name="msr",
    help="Multimodal sequential recommendation: the steps in the order in which data flows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


class EngineName(StrEnum):
    """Which engine answers: in this process, or a vLLM server."""

    local = "local"
    vllm = "vllm"


class CutName(StrEnum):
    """What a preference has seen of the history: all but the target item, or everything."""

    last = "last"
    none = "none"


Data = Annotated[str, typer.Option(help="Folder (or fsspec URL) of artifacts.", envvar="MSR_DATA")]
EngineOption = Annotated[EngineName, typer.Option("--engine", envvar="MSR_ENGINE")]
Model = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint folder, hub name, or a vLLM server's model name; else the demo model.",
        envvar="MSR_MODEL",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        help="Adapter folder or a vLLM server's adapter name; `none` for the base alone. Else the "
        "data folder's adapter, else the demo adapter on the demo model.",
        envvar="MSR_ADAPTER",
    ),
]
VllmUrls = Annotated[
    str | None, typer.Option(help="vLLM servers, comma-separated; else MSR_VLLM_URLS.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Say what a run would cost, and stop.")]
Retry = Annotated[bool, typer.Option("--retry-quarantined", help="Try quarantined rows again.")]


# --- 1 to 3: catalogue, summaries, preferences ---------------------------------------------------


@app.command("prepare-catalogue")
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
        _report(lambda: step.estimate(source, **options), as_json)
    else:
        options |= {
            "retry_quarantined": retry_quarantined,
            "allowed_hosts": tuple(allow_host or ()),
        }
        _report(lambda: step.run(source, **options), as_json)


@app.command("summarize-images")
def summarize_images(
    data: Data = "data",
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    vllm_urls: VllmUrls = None,
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

    _report(lambda: _with_engine(work, data, engine, model, adapter, vllm_urls), as_json)


@app.command("build-preferences")
def build_preferences(
    data: Data = "data",
    direct: Annotated[
        bool, typer.Option("--direct", help="One prompt over the history, for comparison.")
    ] = False,
    users: Annotated[int | None, typer.Option(min=1, help="The first N users only.")] = None,
    cut: Annotated[
        CutName, typer.Option(help="`last` for training and evaluation, `none` for serving.")
    ] = CutName.last,
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    vllm_urls: VllmUrls = None,
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

    _report(lambda: _with_engine(work, data, engine, model, adapter, vllm_urls), as_json)


# --- 4 to 6: rankers, examples, training, evaluation ---------------------------------------------


@app.command("fit-retrieval")
def fit_retrieval(data: Data = "data", as_json: AsJson = False) -> None:
    """4'. Fit the cheap rankers: popularity and item-kNN."""
    from model_training import fit_retrieval as step

    _report(lambda: step.run(data), as_json)


@app.command("build-examples")
def build_examples(
    data: Data = "data",
    negatives: Annotated[
        int | None, typer.Option(min=1, help="Negative samples per target item.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the negative samples.")] = None,
    as_json: AsJson = False,
) -> None:
    """4. Cut targets from histories and draw negative samples."""
    from model_training import build_examples as step

    given = {"num_negatives": negatives, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _report(lambda: step.run(data, **options), as_json)


@app.command()
def train(
    data: Data = "data",
    config: Annotated[Path, typer.Option(help="Experiment file.")] = CONFIGS / "default.yaml",
    output: Annotated[
        str | None, typer.Option(help="Where the adapter goes; else `adapter` in the data folder.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model in place of the configuration's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """5. Fine-tune the adapter that answers Yes or No."""
    from model_training import train as step
    from model_training.config import load_config

    _report(lambda: step.run(data, load_config(config), output=output, model=model), as_json)


@app.command()
def evaluate(
    data: Data = "data",
    protocol: Annotated[str, typer.Option(help="How targets meet negatives.")] = "chrono-uniform",
    blank_covers: Annotated[
        bool, typer.Option("--blank-covers", help="Ablation: the model sees no cover.")
    ] = False,
    other_preference: Annotated[
        bool, typer.Option("--other-preference", help="Ablation: another user's preference.")
    ] = False,
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    vllm_urls: VllmUrls = None,
    as_json: AsJson = False,
) -> None:
    """6. Rank held-out targets among negatives, beside popularity, item-kNN and chance."""
    from model_training import evaluate as step

    def work(opened: Any) -> Awaitable[Any]:
        return step.run(
            data,
            opened,
            protocol=protocol,
            blank_covers=blank_covers,
            other_preference=other_preference,
        )

    _report(lambda: _with_engine(work, data, engine, model, adapter, vllm_urls), as_json)


# --- serving -------------------------------------------------------------------------------------


@app.command()
def publish(data: Data = "data", as_json: AsJson = False) -> None:
    """Load items, histories and preferences into Redis; `serve` does it by itself."""
    from services import deployment

    _report(lambda: deployment.publish(data, _settings()), as_json)


@app.command()
def serve(
    data: Data = "data",
    host: Annotated[str, typer.Option(envvar="MSR_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="MSR_PORT", help="0 takes a free one.")] = 8000,
    worker: Annotated[
        bool | None,
        typer.Option(
            "--worker/--no-worker",
            help="Fold interactions in this process too; the default when REDIS_URL is unset.",
        ),
    ] = None,
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    vllm_urls: VllmUrls = None,
) -> None:
    """Answer the HTTP API."""
    from services import deployment

    choice = _engine_choice(data, engine, model, adapter, vllm_urls)
    _run(deployment.serve(data, choice, _settings(), host=host, port=port, with_worker=worker))


@app.command()
def worker(
    data: Data = "data",
    engine: EngineOption = EngineName.local,
    model: Model = None,
    adapter: Adapter = None,
    vllm_urls: VllmUrls = None,
) -> None:
    """Fold interactions into preferences and summarize new items, as they arrive."""
    from services import deployment

    choice = _engine_choice(data, engine, model, adapter, vllm_urls)
    _run(deployment.work(data, choice, _settings()))


# --- demo and benchmarks -------------------------------------------------------------------------


@app.command()
def demo(
    data: Data = "data/demo",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    once: Annotated[
        bool, typer.Option("--once", help="End after the walk; exit 1 if it did not hold.")
    ] = False,
) -> None:
    """Prepare the demo world, serve it, and walk through what happens."""
    from services import demo as step
    from services.logs import configure

    configure(level=os.environ.get("MSR_LOG_LEVEL", "warning"))  # the walk is what is to be read
    if not _run(step.run(data, port=port, once=once)):
        raise typer.Exit(1)


@app.command("demo-model")
def demo_model(
    work: Annotated[str, typer.Option(help="Folder for intermediate artifacts.")] = "runs/demo",
    output: Annotated[
        Path | None, typer.Option(help="Where the weights go; else where they are shipped.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the shipped demo model and its adapter again, from nothing (under an hour)."""
    from model_training.demo import train_demo

    _report(lambda: train_demo.run(work, output), as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A file of benchmarks/, as in `msr bench walk`.")],
    as_json: AsJson = False,
) -> None:
    """Answer one measured question with one table; more options are the benchmark's own."""
    from benchmarks import running

    _report(lambda: running.run(name, context.args), as_json)


# --- what the commands share ---------------------------------------------------------------------


def main() -> None:
    """Run `msr`; an error of ours is one line on stderr and exit status 1."""
    from services.logs import configure

    configure(level=os.environ.get("MSR_LOG_LEVEL", "info"))
    try:
        app()
    except MsrError as error:
        sys.exit(f"msr: {error}")
    except ExceptionGroup as group:  # from concurrent work; the first of ours says it
        ours = group.subgroup(MsrError)
        if ours is None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"msr: {first}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _report(step: Callable[[], Any], as_json: bool) -> None:
    started = time.perf_counter()
    result = step()
    if asyncio.iscoroutine(result):
        result = _run(result)
    result = {**result, "seconds": round(time.perf_counter() - started, 3)}
    if as_json:
        typer.echo(json.dumps(result))
        return
    for key, value in result.items():
        if isinstance(value, dict):
            shown = "  ".join(f"{name} {_shown(part)}" for name, part in value.items())
        else:
            shown = _shown(value)
        typer.echo(f"{key:>20}  {shown}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


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
        from services.demo import open_demo_world

        return open_demo_world(data), IMAGE_SIZE
    if amazon is not None:
        if category is None:
            raise InputError("--amazon needs --category, as in Video_Games.jsonl")
        return Amazon(amazon, category), DEFAULT_IMAGE_SIZE
    if microlens is not None:
        return MicroLens(microlens), DEFAULT_IMAGE_SIZE
    assert catalogue is not None
    return Plain(catalogue), DEFAULT_IMAGE_SIZE


def _settings(**given: Any) -> Any:
    """The environment's settings, but for those given here."""
    from pydantic import ValidationError

    from services.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        raise InputError(f"the environment has a setting that cannot be used: {error}") from error


def _engine_choice(
    data: str, engine: EngineName, model: str | None, adapter: str | None, vllm_urls: str | None
) -> Any:
    from services.deployment import choose_engine

    settings = _settings() if vllm_urls is None else _settings(vllm_urls=vllm_urls)
    return choose_engine(data, settings, kind=engine.value, model=model, adapter=adapter)


async def _with_engine(
    work: Callable[[Any], Awaitable[Any]],
    data: str,
    engine: EngineName,
    model: str | None,
    adapter: str | None,
    vllm_urls: str | None,
) -> Any:
    opened = await _engine_choice(data, engine, model, adapter, vllm_urls).open()
    try:
        return await work(opened)
    finally:
        await opened.close()


if __name__ == "__main__":
    main()
