"""The cut between history and target item, and the split of users; nowhere else are they made.

Every user gives one example: the history is all interactions but the last, the target item is the
last (`chrono` protocols). Users are split into training, validation and test users by a seeded hash
of their id, so that the split depends on neither file order nor other users' ids.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar

from services.core.errors import HistoryTooShort
from services.core.records import UserId

Split = Literal["train", "validation", "test"]
Cut = Literal["last", "none"]

SPLIT_SEED = 2025

T = TypeVar("T")


def leave_last_out(history: Sequence[T]) -> tuple[Sequence[T], T]:
    """(history, target item) of a user's interactions, oldest first.

    Raises HistoryTooShort if there is no target or nothing before it.
    """
    if len(history) < 2:
        raise HistoryTooShort(
            f"{len(history)} interaction(s) leave no history before a target item; "
            "filter such users out with --min-user-interactions 2"
        )
    return history[:-1], history[-1]


def cut_history(history: Sequence[T], cut: Cut) -> Sequence[T]:
    """What a preference may see: all but the target item (`last`), or everything (`none`)."""
    return leave_last_out(history)[0] if cut == "last" else history


def split_users(user_ids: Sequence[UserId], *, seed: int = SPLIT_SEED) -> dict[UserId, Split]:
    """80 % of the users for training, 10 % for validation, the rest (rounded up) for testing."""

    def draw(user_id: UserId) -> bytes:
        return hashlib.sha256(f"{seed}:{user_id}".encode()).digest()

    ordered = sorted(user_ids, key=draw)
    num_train, num_before_test = int(0.8 * len(ordered)), int(0.9 * len(ordered))
    return {
        user_id: "train" if i < num_train else "validation" if i < num_before_test else "test"
        for i, user_id in enumerate(ordered)
    }
