"""One hostile image file: its name says what it tries."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostileImage:
    """One file. `heavy` ones take seconds to build or to prepare, or many megabytes."""

    name: str
    build: Callable[[], bytes]
    heavy: bool = False


def of(content: bytes) -> Callable[[], bytes]:
    """How to build what is built already."""
    return lambda: content
