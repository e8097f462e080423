"""How log events are shown; entry points call `configure` once.

Events go to stderr: stdout belongs to results.
"""

import logging
import sys

import structlog


def configure(*, level: str = "info") -> None:
    """Show events of this level and above, colored on a terminal and as JSON lines elsewhere."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer(terminal=terminal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def renderer(*, terminal: bool) -> structlog.typing.Processor:
    """How one event becomes a line."""
    if not terminal:
        return structlog.processors.JSONRenderer()
    # The default prints the local variables of every frame, and with them prompts and API keys.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
