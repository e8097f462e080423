"""Steps 4 to 6: cheap rankers, examples, the adapter, evaluation."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.options import (
    Adapter,
    AsJson,
    Data,
    EngineName,
    EngineOption,
    Model,
    Ray,
    RayWorkers,
    Urls,
    engine_choice,
    with_engine,
)
from services.commands.reporting import report

CONFIGS = Path(__file__).parent.parent.parent / "model_training" / "configs"


def fit_retrieval(data: Data = "data", as_json: AsJson = False) -> None:
    """4'. Fit the cheap rankers: popularity and item-kNN."""
    from model_training import fit_retrieval as step

    report(lambda: step.run(data), as_json)


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
    report(lambda: step.run(data, **options), as_json)


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

    report(lambda: step.run(data, load_config(config), output=output, model=model), as_json)


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
    url: Urls = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
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

    choice = engine_choice(data, engine, model, adapter, url, on_ray=ray is not None)
    report(lambda: with_engine(work, choice, ray=ray, ray_workers=ray_workers), as_json)
