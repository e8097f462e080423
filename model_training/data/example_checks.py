"""Checks of the examples before a training that takes hours.

The examples are checked against the interactions, whichever program wrote them. A user in two
splits or a negative that the user took would make every later number wrong without an error.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from services.core.errors import ArtifactMismatch, EmptyDataset
from services.core.records import ItemId, UserId
from services.core.splits import leave_last_out, split_users


def require_sound_examples(
    examples: pa.Table, histories: Mapping[UserId, Sequence[ItemId]]
) -> None:
    """ArtifactMismatch if a user, a positive or a negative is not what the interactions say, or if
    validation users have different numbers of rows.
    """
    split = split_users(list(histories))
    split_of: dict[UserId, str] = {}
    rows, positives = Counter[UserId](), Counter[UserId]()  # of validation users
    names = ("user_id", "item_id", "label", "split")
    for user_id, item_id, label, found in zip(
        *(examples[name].to_pylist() for name in names), strict=True
    ):
        if user_id not in histories:
            raise _unsound(f"user {user_id!r} has examples and no interactions")
        if split_of.setdefault(user_id, found) != found:
            raise _unsound(f"user {user_id!r} is in two splits, {split_of[user_id]} and {found}")
        if split[user_id] != found:
            raise _unsound(
                f"user {user_id!r} is a {found} user in the examples, and a {split[user_id]} user "
                "by the split of all users"
            )
        if label and item_id != leave_last_out(histories[user_id])[1]:
            raise _unsound(f"the positive {item_id!r} of user {user_id!r} is not the target item")
        if not label and item_id in histories[user_id]:
            raise _unsound(f"the negative {item_id!r} of user {user_id!r} is an item they took")
        if found == "validation":
            rows[user_id] += 1
            positives[user_id] += bool(label)
    # Metrics per user need the same number of rows for each, one of them positive.
    width = max(rows.values(), default=0)
    for user_id, number in rows.items():
        if number != width or positives[user_id] != 1:
            raise _unsound(
                f"validation user {user_id!r} has {number} rows and {positives[user_id]} targets, "
                f"others have {width} rows and one"
            )


def require_both_classes(rows: pa.Table, name: str) -> None:
    """EmptyDataset if the `name` examples have no row, or none with one of the two answers."""
    if not rows.num_rows:
        raise EmptyDataset(
            f"there are no {name} users in the {name} examples; build preferences for more users"
        )
    labels = set(rows["label"].to_pylist())
    for label, what in ((True, "positive (answer Yes)"), (False, "negative (answer No)")):
        if label not in labels:
            raise EmptyDataset(
                f"the {name} examples have no {what} row among {rows.num_rows}; run `msr "
                "build-examples` again, with --negatives of 1 or more"
            )


def _unsound(what: str) -> ArtifactMismatch:
    return ArtifactMismatch(f"{what}; delete the examples and run `msr build-examples` again")
