"""The format of log events; entry points call `configure` once.

Events go to stderr, results to stdout. Messages of libraries, from level WARNING on, become events
too, so that every line is JSON unless stderr is a terminal.
"""

import logging
import os
import sys

import structlog


def configure(*, level: str = "info") -> None:
    """Write events of this level and above: colored on a terminal, else as JSON lines."""
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
    """Turn progress bars off, unless stderr is a terminal: a server's log holds events only.

    Call it before importing anything that shows bars: tqdm reads its environment at import.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def renderer(*, terminal: bool) -> structlog.typing.Processor:
    """The processor that turns an event into a line."""
    if not terminal:
        return structlog.processors.JSONRenderer()
    # The default prints local variables of every frame, which include prompts and API keys.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
