"""Everything that Redis holds of one user, as `msr export-user` prints it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from services.core.errors import UnknownUser
from services.core.records import UserId
from services.state import keys
from services.state.encoding import decode_margin
from services.state.user_store import Store


async def export_user(store: Store, user_id: UserId) -> dict[str, Any]:
    """Everything stored of a user, as plain values; UnknownUser if there is nothing.

    Cached margins are listed by their key, a digest (`keys.score_key`).
    """
    partition = keys.partition_of(user_id)
    user = await store.load_user(user_id)
    if user is None:
        raise UnknownUser(f"nothing is held of user {user_id!r}")
    scores, shown, waiting, dead, lives = await store.connection.call_all(
        [
            ("HGETALL", keys.scores(user_id)),
            ("HKEYS", keys.shown(user_id)),
            ("XRANGE", keys.events(partition), "-", "+"),
            ("XRANGE", keys.dead_letters(partition), "-", "+"),
            ("TTL", keys.user(user_id)),
        ]
    )
    margins = zip(scores[::2], scores[1::2], strict=True)
    return {
        "user_id": user_id,
        "history": [
            {name: value for name, value in asdict(each).items() if name != "user_id"}
            for each in user.history
        ],
        "preference": user.preference,
        "timeline": [asdict(entry) for entry in user.timeline],
        "tail": list(user.state.tail),
        "history_version": user.version,
        "preference_version": user.preference_version,
        "writer": user.writer,
        "num_dropped_blocks": user.num_dropped_blocks,
        "cached_margins": {key.decode(): decode_margin(margin) for key, margin in margins},
        "recommended_in_experiment": sorted(item_id.decode() for item_id in shown),
        "waiting_updates": _count_of(user_id, waiting),
        "dead_letters": _count_of(user_id, dead),
        "expires_in_seconds": lives,
    }


def _count_of(user_id: UserId, entries: Sequence[Any]) -> int:
    """How many entries of a stream are this user's."""
    return sum([b"user_id", user_id.encode()] == fields[:2] for _, fields in entries)
