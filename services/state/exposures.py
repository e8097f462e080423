"""Which items an experiment recommended to which user, to credit interactions to an arm.

Entries expire after some days, are capped per user, and are deleted with the user; for users
without a history nothing is kept. An item counts once, for the arm that recommended it last.

    exposures = ExposureLog(store.connection)
    await exposures.note(user_id, "spring-or-summer", "control", item_ids)
    arms = await exposures.take({user_id: [item_id]})
"""

from collections.abc import Mapping, Sequence

from services.core.records import ItemId, UserId
from services.state import keys
from services.state.connection import Connection


class ExposureLog:
    """The recommendations to all users."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def note(
        self, user_id: UserId, experiment: str, arm: str, item_ids: Sequence[ItemId]
    ) -> None:
        """Record that this arm recommended these items to the user."""
        if item_ids:
            await self._connection.run(
                "note_shown",
                [keys.user(user_id), keys.shown(user_id)],
                [keys.SHOWN_TTL_SECONDS, keys.SHOWN_CAP, f"{experiment} {arm}", *item_ids],
            )

    async def take(self, taken: Mapping[UserId, Sequence[ItemId]]) -> list[tuple[str, str]]:
        """Remove these items; (experiment, arm) for each that had been recommended."""
        replies = await self._connection.run_all(
            "take_shown", [([keys.shown(user)], list(items)) for user, items in taken.items()]
        )
        # Neither name can contain a space.
        found = [arm.decode().partition(" ") for reply in replies for arm in reply]
        return [(experiment, arm) for experiment, _, arm in found]
