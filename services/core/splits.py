"""The cut between history and target item, and the split of users; nowhere else are they made.

Every user gives one example. A cut says which of the user's items is the target; the history is
what came before it:
    last      the last item (the chrono protocols)
    popular   of the user's six most popular items the one taken last (protocol `paper`); what the
              user did after it is hidden as well
    none      there is no target, nothing is hidden (for serving)
Users are split into training, validation and test users by the rank of a seeded hash of their id:
the parts have exact sizes whatever the order of the file. New users push a few others across the
two borders, so evaluate an adapter on the data that it was trained on, or on users of another.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from services.core.errors import HistoryTooShort
from services.core.records import UserId

Split = Literal["train", "validation", "test"]
Cut = Literal["last", "popular", "none"]

SPLIT_SEED = 2025
# Among how many of a user's items, the most popular ones, the cut `popular` looks for the target.
NUM_POPULAR = 6

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


def cut_at_popular(history: Sequence[T], popularity: Mapping[T, int]) -> tuple[Sequence[T], T]:
    """(history before the target, target item): the target is, of the user's six items that most
    training users took, the one that the user took last.

    `popularity` counts the training users who took an item; what is not in it counts 0. Of equally
    popular items the earlier ones are among the six. Raises HistoryTooShort like `leave_last_out`.
    """
    leave_last_out(history)
    by_popularity = sorted(range(len(history)), key=lambda at: -popularity.get(history[at], 0))
    at = max(by_popularity[:NUM_POPULAR])
    return history[:at], history[at]


def hold_out(history: Sequence[T], cut: Cut, popularity: Mapping[T, int]) -> tuple[Sequence[T], T]:
    """(history, target item) by a cut that has a target; HistoryTooShort if there is none.

    `popularity` is read by the cut `popular` alone. ValueError for the cut `none`.
    """
    if cut == "last":
        return leave_last_out(history)
    if cut == "popular":
        return cut_at_popular(history, popularity)
    raise ValueError("the cut 'none' holds nothing out")


def cut_history(
    history: Sequence[T], cut: Cut, popularity: Mapping[T, int] | None = None
) -> Sequence[T]:
    """What may be seen of a history under a cut: what came before the target, or everything.

    ValueError if the cut is `popular` and no popularity is given.
    """
    if cut == "none":
        return history
    if cut == "popular" and popularity is None:
        raise ValueError("the cut 'popular' needs the popularity among training users")
    return hold_out(history, cut, popularity or {})[0]


def training_popularity(by_user: Mapping[UserId, Sequence[T]]) -> Counter[T]:
    """How many training users took each item: what the cut `popular` goes by.

    Training users alone, so that nothing about a held-out target decides which item it is.
    """
    split = split_users(list(by_user))
    return Counter(
        item for user, items in by_user.items() if split[user] == "train" for item in set(items)
    )


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
