"""Margins that the model computed, kept for a day so that no candidate is scored twice."""

from collections.abc import Collection, Mapping

from services.core.records import UserId
from services.state import keys
from services.state.connection import Connection
from services.state.encoding import decode_margin, encode_margin


class ScoreCache:
    """The cached margins of all users, by `keys.score_key`."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def load(self, user_id: UserId, score_keys: Collection[str]) -> dict[str, float]:
        """The cached margins of these keys; missing ones are left out."""
        wanted = list(score_keys)
        if not wanted:
            return {}
        found = await self._connection.call("HMGET", keys.scores(user_id), *wanted)
        return {
            key: decode_margin(data)
            for key, data in zip(wanted, found, strict=True)
            if data is not None
        }

    async def save(self, user_id: UserId, margins: Mapping[str, float]) -> None:
        """Cache margins for a day; for a user without a history nothing is kept."""
        if not margins:
            return
        pairs = [part for key, margin in margins.items() for part in (key, encode_margin(margin))]
        await self._connection.run(
            "save_scores",
            [keys.user(user_id), keys.scores(user_id)],
            [keys.SCORES_TTL_SECONDS, keys.SCORES_CAP, *pairs],
        )
