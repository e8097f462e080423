"""Token counts of prompts. Engines record them, and a caller counts around its call.

with token_usage.counting() as cost:
    await engine.score(messages)
cost.prompt_tokens
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class TokenUsage:
    """Tokens read, those among them that a prefix cache held, and tokens written."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


_current: ContextVar[TokenUsage | None] = ContextVar("usage", default=None)


@contextmanager
def counting() -> Iterator[TokenUsage]:
    """Counts what engines record inside, also in tasks that are started there."""
    usage = TokenUsage()
    token = _current.set(usage)
    try:
        yield usage
    finally:
        _current.reset(token)


def record(prompt_tokens: int, cached_tokens: int, generated_tokens: int) -> None:
    """Add the tokens of one prompt."""
    usage = _current.get()
    if usage is not None:
        usage.prompt_tokens += prompt_tokens
        usage.cached_tokens += cached_tokens
        usage.generated_tokens += generated_tokens


def record_response(answer: Mapping[str, Any]) -> None:
    """Add the token counts in an OpenAI-compatible answer; missing ones count as 0."""
    usage = answer.get("usage")
    record(
        _number(usage, "prompt_tokens"),
        _number(_field(usage, "prompt_tokens_details"), "cached_tokens"),
        _number(usage, "completion_tokens"),
    )


def _number(holder: object, name: str) -> int:
    value = _field(holder, name)
    return value if isinstance(value, int) else 0


def _field(holder: object, name: str) -> object:
    return holder.get(name) if isinstance(holder, dict) else None
