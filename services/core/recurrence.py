"""The recurrence: a written preference carried through a history, block after block.

    preference(n) = write(preference(n - 1), block n)

Blocks are BLOCK_SIZE interactions, oldest first. A preference state is a checkpoint (the preference
after the last full block) plus a tail (the unfinished block); the current preference is one more
`write` over the tail, which leaves the checkpoint as it was. The offline step, the online worker
and the tests all use this file, each with its own `write`. So the state depends on the history
alone, not on the order of arrival (MLLM-MSR, section 3.2).

An element of a history is anything that `write` accepts: here it is only counted and compared.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Generic, TypeVar

BLOCK_SIZE = 3

# The direct variant, for comparison, reads this many latest interactions in one prompt.
DIRECT_HISTORY_SIZE = 30

T = TypeVar("T")


@dataclass(frozen=True)
class WrittenBlock(Generic[T]):
    """A full block and the preference written after it."""

    elements: tuple[T, ...]
    preference: str


@dataclass(frozen=True)
class PreferenceState(Generic[T]):
    """Written blocks, oldest first, and the tail of 0 to BLOCK_SIZE - 1 elements after them."""

    blocks: tuple[WrittenBlock[T], ...] = ()
    tail: tuple[T, ...] = ()

    @property
    def checkpoint(self) -> str:
        """The preference after the last full block, "" before the first."""
        return self.blocks[-1].preference if self.blocks else ""

    @property
    def history(self) -> tuple[T, ...]:
        """Everything in the blocks and the tail, oldest first."""
        written = tuple(element for block in self.blocks for element in block.elements)
        return written + self.tail


# write(previous preference, block) -> preference
Write = Callable[[str, Sequence[T]], Awaitable[str]]


def split_blocks(history: Sequence[T]) -> tuple[list[tuple[T, ...]], tuple[T, ...]]:
    """Cut a history (oldest first) into its full blocks and its tail."""
    num_full = len(history) // BLOCK_SIZE
    blocks = [tuple(history[k * BLOCK_SIZE : (k + 1) * BLOCK_SIZE]) for k in range(num_full)]
    return blocks, tuple(history[num_full * BLOCK_SIZE :])


async def advance(
    state: PreferenceState[T], arrived: Sequence[T], *, write: Write[T]
) -> PreferenceState[T]:
    """Advance the state by `arrived` (oldest first, all later than the state)."""
    blocks, tail = split_blocks((*state.tail, *arrived))
    written = list(state.blocks)
    checkpoint = state.checkpoint
    for block in blocks:
        checkpoint = await write(checkpoint, block)
        written.append(WrittenBlock(block, checkpoint))
    return PreferenceState(tuple(written), tail)


async def current_preference(state: PreferenceState[T], *, write: Write[T]) -> str:
    """The preference after everything in the state, tail included; "" for an empty history."""
    if not state.tail:
        return state.checkpoint
    return await write(state.checkpoint, state.tail)


async def rebuild(
    state: PreferenceState[T], history: Sequence[T], *, write: Write[T]
) -> PreferenceState[T]:
    """The state of `history`, with the leading blocks of `state` that it still has.

    A late interaction changes its own block and every later one; the blocks before it are kept.
    """
    num_kept = count_current_blocks(state.blocks, history)
    base: PreferenceState[T] = PreferenceState(state.blocks[:num_kept])
    return await advance(base, history[num_kept * BLOCK_SIZE :], write=write)


def count_current_blocks(blocks: Sequence[WrittenBlock[T]], history: Sequence[T]) -> int:
    """How many leading blocks have the elements that a history has in their place."""
    return count_equal_leading([block.elements for block in blocks], split_blocks(history)[0])


def count_equal_leading(left: Sequence[object], right: Sequence[object]) -> int:
    """How many elements two sequences have in common before the first difference."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
