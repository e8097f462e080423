"""A note in Redis about the texts that were published, so that whoever serves them knows of it.

One hash, `msr:texts`. Its field `statistics` says how much summaries and preferences vary
(`core/data_folder/text_statistics.py`). `msr publish` writes it. A Redis that an older version
published into has no note.

    note = PublishedTexts(store.connection)
    await note.save_statistics([summaries.text_statistics()])
"""

import json
from collections.abc import Iterable

from services.core.data_folder.text_statistics import TextStatistics
from services.core.errors import StateError
from services.state import keys
from services.state.connection import Connection

STATISTICS = "statistics"


class PublishedTexts:
    """What is known of the published texts."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def load_statistics(self) -> list[TextStatistics]:
        """Of each kind of text, in the order of the data flow; none if there is no note."""
        reply = await self._connection.call("HGET", keys.TEXTS, STATISTICS)
        return [] if reply is None else _decode(reply)

    async def save_statistics(self, statistics: Iterable[TextStatistics]) -> None:
        """Replace the note; an equal one is not written again."""
        after = json.dumps([each.to_json() for each in statistics], ensure_ascii=False)
        before = await self._connection.call("HGET", keys.TEXTS, STATISTICS)
        if before is None or bytes(before) != after.encode():
            await self._connection.call("HSET", keys.TEXTS, STATISTICS, after)


def _decode(value: bytes) -> list[TextStatistics]:
    try:
        return [TextStatistics.from_json(each) for each in json.loads(value)]
    except (ValueError, TypeError, AttributeError) as error:
        raise StateError(
            f"Redis holds statistics of texts that cannot be read ({error}); they were written by "
            f"other code: delete them by HDEL {keys.TEXTS} {STATISTICS}, then run `msr publish`"
        ) from error
