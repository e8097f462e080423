"""`msr`, the one command: a subcommand for every step of the data flow, in its order.

A command reads its options, calls the step's `run` and prints the result. Steps are imported when
they run, so that `msr --help` is quick and a server does not load what only training needs. With
`--json` the last line on stdout is one JSON object with the counts and `seconds`.
"""

import os
import sys

from services.core.errors import MsrError

try:
    import typer
except ImportError:
    sys.exit("`msr` needs more than a client does: pip install 'mllm-msr[serve]'")

from services.commands import (
    adapters,
    api_keys,
    bench,
    doctor,
    offline,
    operations,
    replay,
    serving,
    training,
)
from services.commands.options import with_values

app = typer.Typer(
    name="msr",
    help="Multimodal sequential recommendation: the steps in the order in which data flows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.command("prepare-catalogue")(offline.prepare_catalogue)
app.command("summarize-images")(offline.summarize_images)
app.command("build-preferences")(offline.build_preferences)

app.command("fit-retrieval")(training.fit_retrieval)
app.command("build-examples")(training.build_examples)
app.command("train")(training.train)
app.command("fit-ranker")(training.fit_ranker)
app.command("evaluate")(training.evaluate)

app.command("merge-adapter")(serving.merge_adapter)
# Arguments after `--` are vLLM's.
app.command("serve-model", context_settings={"allow_extra_args": True})(serving.serve_model)
app.command("publish")(serving.publish)
app.command("serve")(serving.serve)
app.command("worker")(serving.worker)
app.add_typer(adapters.adapters, name="adapters")
app.add_typer(api_keys.keys, name="keys")
app.add_typer(operations.dead_letters, name="dead-letters")
app.command("export-user")(operations.export_user)
app.command("openapi")(replay.openapi)
app.command("replay")(replay.replay)
app.command("doctor")(doctor.doctor)

app.command("demo")(bench.demo)
app.command("demo-model")(bench.demo_model)
# A benchmark reads its own options.
_PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("bench", context_settings=_PASSES_ON)(bench.bench)


def main() -> None:
    """Run `msr`; an MsrError gives one line on stderr and exit status 1."""
    from services.process.logs import configure

    configure(level=os.environ.get("MSR_LOG_LEVEL", "info"))
    try:
        app(with_values(sys.argv[1:]))
    except MsrError as error:
        sys.exit(f"msr: {error}")
    except ExceptionGroup as group:  # from concurrent work; the first MsrError is printed
        ours = group.subgroup(MsrError)
        if ours is None:
            raise
        first: BaseException = ours
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"msr: {first}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
