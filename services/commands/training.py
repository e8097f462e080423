"""Steps 4 to 8: cheap rankers, examples, the adapter, fusion, evaluation."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from model_training.finetune.stages import STAGES
from services.commands.options import (
    AsJson,
    BatchEngineArguments,
    Data,
    a_checkpoint,
    with_groups,
)
from services.commands.reporting import report
from services.core.splits import Cut
from services.process.step_packages import require_packages

CONFIGS = Path(__file__).parent.parent.parent / "model_training" / "configs"


def fit_retrieval(
    data: Data = "data",
    cut: Annotated[
        Cut,
        typer.Option(
            help="What is hidden from the rankers: the last item of validation and test users, the "
            "targets of protocol `paper`, or nothing (only for serving)."
        ),
    ] = "last",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="SASRec's epochs; fewer are faster and worse.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """4. Fit the cheap rankers: trending, item-kNN, titles, SASRec."""
    from model_training.rankers import fit_retrieval as step

    report(lambda: step.run(data, cut=cut, epochs=epochs), as_json)


@with_groups
def fit_ranker(
    data: Data = "data",
    protocol: Annotated[
        str, typer.Option(help="Protocol of the ranking tasks; chrono-uniform's fusion serves.")
    ] = "chrono-uniform",
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Leave out the margin of the multimodal model.")
    ] = False,
    for_adapter: Annotated[
        bool,
        typer.Option(
            "--for-adapter",
            help="Keep the weights that serve; these are for when this adapter is activated.",
        ),
    ] = False,
    *,
    engine: BatchEngineArguments,
    as_json: AsJson = False,
) -> None:
    """7. Learn from validation users how much each ranker and the model's margin count."""
    from model_training.rankers import fit_ranker as step
    from services.core.errors import InputError
    from services.retrieval.fusion import ADAPTER_RANKER

    if for_adapter and (no_model or not step.can_weigh_margins(data, protocol)):
        raise InputError(
            "--for-adapter is for weights of an adapter's margins, and here are none: run `msr "
            "build-preferences` first, and leave out --no-model"
        )
    if no_model or not step.can_weigh_margins(data, protocol):
        report(lambda: step.run(data, protocol=protocol), as_json)
        return

    def work(opened: Any) -> Awaitable[Any]:
        name = f"{ADAPTER_RANKER}{opened.identity.adapter}" if for_adapter else None
        return step.run(data, opened, protocol=protocol, name=name)

    report(lambda: engine.run(data, work), as_json)


def build_examples(
    data: Data = "data",
    negatives: Annotated[
        int | None, typer.Option(min=1, help="Uniform negative samples per target item.")
    ] = None,
    hard_negatives: Annotated[
        int | None,
        typer.Option(
            min=0, help="Negatives from the top of the cheap rankers; training users only."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the negative samples.")] = None,
    as_json: AsJson = False,
) -> None:
    """5. Cut targets from histories and draw negative samples."""
    from model_training.data import build_examples as step

    given = {"num_negatives": negatives, "num_hard_negatives": hard_negatives, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    report(lambda: step.run(data, **options), as_json)


def train(
    data: Data = "data",
    stage: Annotated[
        str,
        typer.Option(
            help=f"Stage of training: {', '.join(STAGES)}. Those after sft start from an adapter."
        ),
    ] = "sft",
    config: Annotated[Path, typer.Option(help="Experiment file.")] = CONFIGS / "default.yaml",
    start_adapter: Annotated[
        str | None,
        typer.Option(help="Adapter to start from, after sft; else `adapter` in the data folder."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Folder of the result; else one in the data folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(callback=a_checkpoint, help="Base model instead of the configuration's."),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(help="Tracker: tensorboard, wandb or mlflow; may be repeated."),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Upload the result to the hub under this name; a new one is private."),
    ] = None,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Measure a few steps, print an estimate for all, and stop."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """6. Fine-tune the adapter that answers Yes or No."""
    require_packages("train")
    from model_training.finetune import train as step
    from model_training.finetune.config import load_config
    from model_training.finetune.distributed import is_main

    def work() -> Any:
        return step.run(
            data,
            load_config(config),
            stage=stage,
            start_adapter=start_adapter,
            output=output,
            model=model,
            trackers=tracker,
            push_to_hub=push_to_hub,
            only_estimate=estimate,
        )

    if is_main():
        report(work, as_json)
    else:  # only the main process reports
        work()


@with_groups
def evaluate(
    data: Data = "data",
    protocol: Annotated[
        str,
        typer.Option(
            help="Evaluation protocol, by name; docs/evaluation.md explains each, and an unknown "
            "name lists them."
        ),
    ] = "chrono-uniform",
    models: Annotated[
        str | None, typer.Option(help="Models, separated by commas; else all that the data allow.")
    ] = None,
    ablate: Annotated[
        Literal["cover", "preference", "user", "direct"] | None,
        typer.Option(
            help="Take one input from the multimodal model: the cover, the preference, the user's "
            "own preference (another's is used), or the recurrence that writes it."
        ),
    ] = None,
    *,
    engine: BatchEngineArguments,
    as_json: AsJson = False,
) -> None:
    """8. Rank held-out targets by every model, and write a report."""
    require_packages("evaluate")
    from model_training.evaluation import evaluate as step
    from model_training.evaluation.choose_models import choose_models
    from model_training.evaluation.report import write_report
    from model_training.evaluation.results import NEED_ENGINE

    names = None if models is None else [name for name in models.split(",") if name]

    async def work(opened: Any) -> Any:
        evaluation = await step.run(data, opened, protocol=protocol, models=names, ablate=ablate)
        return {**evaluation.to_json_dict(), "report": write_report(data, evaluation)}

    def run() -> Awaitable[Any]:
        # Weights are loaded only if a chosen model needs them.
        wanted, _ = choose_models(data, protocol, names, ablate=ablate)
        if not set(wanted) & set(NEED_ENGINE):
            return work(None)
        return engine.run(data, work)

    report(run, as_json)
