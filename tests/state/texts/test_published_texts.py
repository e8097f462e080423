"""The note about published texts is kept as it was written, and may be missing."""

import pytest

from services.core.data_folder.text_statistics import TextStatistics
from services.core.errors import StateError
from services.state import keys
from services.state.texts.published_texts import PublishedTexts
from services.state.user_store import Store

FOUND = [
    TextStatistics("summaries", 633, 50, "Ein schöner Baum: 灰色.", 240, num_empty=3, num_cut=1),
    TextStatistics("preferences", 500, 499, "Likes trees.", 2),
]


async def test_a_redis_without_a_note_knows_nothing(store: Store):
    assert await PublishedTexts(store.connection).load_statistics() == []


async def test_the_statistics_come_back_and_leave_other_fields_alone(store: Store):
    await store.connection.call("HSET", keys.TEXTS, "another", "note")
    note = PublishedTexts(store.connection)

    await note.save_statistics(FOUND)

    assert await note.load_statistics() == FOUND
    assert await store.connection.call("HGET", keys.TEXTS, "another") == b"note"


async def test_a_field_of_a_later_version_is_not_looked_at(store: Store):
    note = PublishedTexts(store.connection)
    await note.save_statistics(FOUND)
    written = await store.connection.call("HGET", keys.TEXTS, "statistics")
    later = bytes(written).replace(b'"kind"', b'"entropy": 3, "kind"')
    await store.connection.call("HSET", keys.TEXTS, "statistics", later)

    assert await note.load_statistics() == FOUND


@pytest.mark.parametrize("value", ["{", "7", "[7]", '[{"kind": "poems"}]'])
async def test_a_note_that_cannot_be_read_is_an_error_with_its_remedy(store: Store, value: str):
    await store.connection.call("HSET", keys.TEXTS, "statistics", value)

    with pytest.raises(StateError, match="HDEL msr:texts statistics"):
        await PublishedTexts(store.connection).load_statistics()
