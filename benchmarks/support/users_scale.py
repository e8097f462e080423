"""Users in an embedded Redis, more and more of them: bytes per user, and the time to load one.

Every block of a user, and the unfinished one, has a text of its own of 45 to 60 words. The texts of
one real user resemble each other and compress better, so a real user takes less.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from benchmarks.support.retrieval_scale import percentiles
from benchmarks.support.synthetic_catalogue import FIRST_TIMESTAMP_MS, draw_preference
from services.core.data_folder.text_writers import preference_writer
from services.core.ids import derive_event_id
from services.core.records import Interaction, ItemId, UserId
from services.core.recurrence import PreferenceState, WrittenBlock, split_blocks
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.records import UpdatedPreference, UserRecord
from services.state.user_store import Store

NUM_ITEMS = 20_000
NUM_TEXTS = 2_000  # a user's texts are compressed alone, so others may have them too
USERS_AT_ONCE = 500
NUM_LOADS = 500


async def measure_users(sizes: Sequence[int], num_interactions: int) -> list[dict[str, Any]]:
    """One row for each number of users, ascending; each user has `num_interactions`."""
    texts = [draw_preference(f"text {number}") for number in range(NUM_TEXTS)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedRedis(folder, fsync="everysec") as url:
            store = await Store.open(url, timeout_seconds=60.0)
            # The server allocates 380 kB once, with the first user; they are no user's memory.
            await _add_users(store, range(1), num_interactions, texts)
            await store.forget_user(_user_id(0))
            empty = await _used_bytes(store)
            num_stored = 0
            for size in sizes:
                await _add_users(store, range(num_stored, size), num_interactions, texts)
                num_stored = size
                held = await _used_bytes(store) - empty
                rows.append(
                    {
                        "size": size,
                        "num_interactions": num_interactions,
                        **await _time_loads(store, size, num_interactions),
                        "bytes": held,
                        "bytes_each": round(held / size),
                    }
                )
            await store.close()
    return rows


async def _add_users(
    store: Store, numbers: range, num_interactions: int, texts: Sequence[str]
) -> None:
    for start in numbers[::USERS_AT_ONCE]:
        users = [_user_id(n) for n in range(start, min(start + USERS_AT_ONCE, numbers.stop))]
        histories = (_history(user, num_interactions) for user in users)
        await store.append_history([each for history in histories for each in history])
        records = await store.load_users(users)
        await store.save_preferences([_updated(record, texts) for record in records.values()])


def _history(user_id: UserId, num_interactions: int) -> Iterator[Interaction]:
    draw = Random(f"history {user_id}")
    for number in range(num_interactions):
        item_id = ItemId(f"item-{draw.randrange(NUM_ITEMS)}")
        timestamp_ms = FIRST_TIMESTAMP_MS + number * 86_400_000
        event_id = derive_event_id(user_id, item_id, timestamp_ms)
        yield Interaction(user_id, item_id, timestamp_ms, event_id)


def _updated(record: UserRecord, texts: Sequence[str]) -> UpdatedPreference:
    draw = Random(f"texts {record.user_id}")
    blocks, tail = split_blocks(record.item_ids)
    written = tuple(WrittenBlock(block, draw.choice(texts)) for block in blocks)
    state = PreferenceState(written, tail)
    preference = draw.choice(texts) if tail else state.checkpoint
    return UpdatedPreference(
        record, state, preference, record.version, preference_writer("random").identity
    )


async def _time_loads(store: Store, num_users: int, num_interactions: int) -> dict[str, float]:
    draw = Random(num_users)
    seconds = []
    for _ in range(NUM_LOADS):
        user_id = _user_id(draw.randrange(num_users))
        started = time.perf_counter()
        record = await store.load_user(user_id)
        seconds.append(time.perf_counter() - started)
        if record is None or len(record.history) != num_interactions or not record.preference:
            raise RuntimeError(f"{user_id} was not stored as it should")
    return percentiles(seconds)


async def _used_bytes(store: Store) -> int:
    reply: bytes = await store.connection.call("INFO", "memory")
    fields = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
    return int(fields["used_memory"])


def _user_id(number: int) -> UserId:
    return UserId(f"user-{number:06d}")
