"""How log events are shown; entry points call `configure` once.

Events go to stderr: stdout belongs to results. What libraries say by Python's own logging, from
WARNING on, becomes events too, so that every line off a terminal is JSON.
"""

import logging
import os
import sys

import structlog


def configure(*, level: str = "info") -> None:
    """Show events of this level and above, colored on a terminal and as JSON lines elsewhere."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        *([] if terminal else [structlog.processors.format_exc_info]),
    ]
    structlog.configure(
        processors=[*shared, renderer(terminal=terminal)],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    of_libraries = logging.StreamHandler(sys.stderr)
    of_libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer(terminal=terminal),
            ],
        )
    )
    logging.basicConfig(handlers=[of_libraries], level=logging.WARNING, force=True)


def without_progress_bars() -> None:
    """For servers: let their log hold events alone, unless somebody looks at a terminal.

    To be called before anything that shows bars is imported: tqdm reads its environment then.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def renderer(*, terminal: bool) -> structlog.typing.Processor:
    """How one event becomes a line."""
    if not terminal:
        return structlog.processors.JSONRenderer()
    # The default prints the local variables of every frame, and with them prompts and API keys.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
