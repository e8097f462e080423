"""The commands after the steps: the model server, the HTTP API, the worker."""

from typing import Annotated, Literal

import typer

from services.commands.options import (
    AcceptOtherTexts,
    AsJson,
    Data,
    EngineArguments,
    a_checkpoint,
    settings,
    with_groups,
)
from services.commands.reporting import report
from services.process.logs import without_progress_bars


def merge_adapter(
    model: Annotated[
        str, typer.Option(callback=a_checkpoint, help="Base checkpoint: a folder or hub name.")
    ],
    adapter: Annotated[str, typer.Option(help="Adapter folder that `msr train` wrote.")],
    out: Annotated[str, typer.Option(help="Folder of the merged checkpoint.")],
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: a checkpoint that scores without LoRA's cost."""
    from model_training.finetune import merge_adapter as step

    report(lambda: step.run(model, adapter, out, dtype=dtype), as_json)


def serve_model(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            callback=a_checkpoint, help="Checkpoint, merged or not: a folder or hub name."
        ),
    ],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="Serve an adapter; repeatable.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name. Default: its folder's.")
    ] = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8001,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="auto: bfloat16 on a GPU, float32 on a CPU."),
    ] = "auto",
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt and answer in tokens.")
    ] = None,
    kv_cache_gb: Annotated[
        float | None, typer.Option(min=0, help="Memory for keys and values, in GiB.")
    ] = None,
    kv_offload_gb: Annotated[
        float | None,
        typer.Option(min=0, help="Host memory for keys and values that the GPU drops, in GiB."),
    ] = None,
    kv_cache_dtype: Annotated[
        str | None, typer.Option(help="Type of keys and values, such as fp8; as the weights' else.")
    ] = None,
    image_cache_gb: Annotated[
        float, typer.Option(min=0, help="Memory for prepared images, in GiB.")
    ] = 4.0,
    gpu_memory_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a GPU's memory to take.")
    ] = 0.9,
    num_gpus: Annotated[int, typer.Option(min=1, help="GPUs to split the model over.")] = 1,
    load_adapters_from: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Let clients load adapters from this folder while the server runs. Anybody who "
            "reaches the port may do so: bind it to this machine or to an internal network only.",
        ),
    ] = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the command and stop.")
    ] = False,
) -> None:
    """Serve a model by vLLM; arguments after `--` go to vLLM."""
    from services.engines.vllm_server import serve as program
    from services.engines.vllm_server.command import ServeOptions, parse_adapters

    options = ServeOptions(
        model=model,
        adapters=parse_adapters(adapter),
        name=name,
        host=host,
        port=port,
        dtype=dtype,
        max_model_len=max_model_len,
        kv_cache_gb=kv_cache_gb,
        kv_offload_gb=kv_offload_gb,
        kv_cache_dtype=kv_cache_dtype,
        image_cache_gb=image_cache_gb,
        gpu_memory_share=gpu_memory_share,
        num_gpus=num_gpus,
        vllm_arguments=tuple(context.args),
        print_only=print_only,
        load_adapters_from=load_adapters_from,
    )
    raise typer.Exit(program.run(options))


def publish(data: Data = "data", as_json: AsJson = False) -> None:
    """Load items, histories and preferences into Redis; `msr serve` does so at its start."""
    from services.deployment import assemble

    report(lambda: assemble.publish(data, settings()), as_json)


@with_groups
def serve(
    data: Data = "data",
    host: Annotated[str, typer.Option(envvar="MSR_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="MSR_PORT", help="0: any free port.")] = 8000,
    worker: Annotated[
        bool | None,
        typer.Option(
            "--worker/--no-worker",
            help="Update preferences in this process too; the default when REDIS_URL is unset.",
        ),
    ] = None,
    accept_other_texts: AcceptOtherTexts = False,
    *,
    engine: EngineArguments,
) -> None:
    """Serve the HTTP API."""
    without_progress_bars()
    from services.deployment import assemble
    from services.process.http_server import run_program

    given = settings()
    choice = engine.choose(data, given)
    run_program(
        assemble.serve(
            data,
            choice,
            given,
            host=host,
            port=port,
            with_worker=worker,
            accept_other_texts=accept_other_texts,
        )
    )


@with_groups
def worker(
    data: Data = "data",
    accept_other_texts: AcceptOtherTexts = False,
    *,
    engine: EngineArguments,
) -> None:
    """Update preferences with new interactions, and summarize new items."""
    without_progress_bars()
    from services.deployment import assemble
    from services.process.http_server import run_program

    given = settings()
    choice = engine.choose(data, given)
    run_program(assemble.work(data, choice, given, accept_other_texts=accept_other_texts))
