"""Items, interactions and updated users for tests; an engine whose texts show what it was asked."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from services.core import recurrence
from services.core.data_folder.text_writers import preference_writer
from services.core.prompts import (
    PREFERENCE_LIMITS,
    GenerationLimits,
    HistoryItem,
    Messages,
    preference_messages,
)
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import PreferenceState
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity
from services.state.records import UpdatedPreference, UserRecord
from services.state.user_store import Store

START_MS = 1_700_000_000_000


def an_item(item_id: str = "i1", *, title: str | None = None, image: bytes | None = None) -> Item:
    return Item(ItemId(item_id), title or f"title of {item_id}", image)


def an_interaction(
    item_id: str = "i1", *, user_id: str = "u1", at: int = 0, event_id: str | None = None
) -> Interaction:
    """`at` is in seconds after a fixed moment."""
    event_id = event_id or f"event-{item_id}-{at}"
    return Interaction(UserId(user_id), ItemId(item_id), START_MS + 1000 * at, event_id)


def a_history(item_ids: Sequence[str], *, user_id: str = "u1") -> list[Interaction]:
    """One interaction a second, in this order."""
    return [an_interaction(item, user_id=user_id, at=k) for k, item in enumerate(item_ids)]


def some_ids(number: int) -> list[str]:
    return [f"i{k}" for k in range(1, number + 1)]


async def put_items(store: Store, item_ids: Sequence[str]) -> None:
    """Items with a summary."""
    for item_id in item_ids:
        await store.items.put_item(an_item(item_id), summary=f"summary of {item_id}")


async def the_user(store: Store, user_id: str = "u1") -> UserRecord:
    record = await store.load_user(UserId(user_id))
    assert record is not None, f"no user {user_id}"
    return record


async def an_updated_user(store: Store, item_ids: Sequence[str], user_id: str = "u1") -> UserRecord:
    """A user whose blocks read "after 1", "after 2", ... and whose preference reads "now"."""
    await put_items(store, item_ids)
    await store.ingest(a_history(item_ids, user_id=user_id))
    record = await the_user(store, user_id)
    return await store.save_preference(updated_by_hand(record))


def updated_by_hand(record: UserRecord, preference: str = "now") -> UpdatedPreference:
    blocks, tail = recurrence.split_blocks(record.item_ids)
    written = tuple(
        recurrence.WrittenBlock(block, f"after {number}")
        for number, block in enumerate(blocks, start=1)
    )
    return UpdatedPreference(
        record,
        PreferenceState(written, tail),
        preference,
        record.version,
        preference_writer("digest").identity,
    )


class DigestEngine:
    """Writes a digest of each prompt, so that any difference in what it is asked shows.

    Prompts that contain a key of `failing` raise that error. With a `gate` every text waits for it;
    `asked` is set by the first prompt.
    """

    num_shortened = 0

    def __init__(
        self,
        *,
        failing: Mapping[str, Exception] | None = None,
        gate: asyncio.Event | None = None,
        model: str = "digest",
    ) -> None:
        self.identity = EngineIdentity(model=model, adapter="")
        self.failing = dict(failing or {})
        self.gate = gate
        self.asked = asyncio.Event()
        self.prompts: list[str] = []

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        prompt = messages[0].text
        self.prompts.append(prompt)
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        for part, error in self.failing.items():
            if part in prompt:
                raise error
        return hashlib.sha256(f"{self.identity.model}{prompt}".encode()).hexdigest()[:16]

    async def score(self, messages: Messages) -> AnswerLogprobs:
        raise AssertionError("nothing here is scored")

    async def close(self) -> None:
        """Nothing is held."""


async def offline(
    item_ids: Sequence[str], *, summaries: Mapping[str, str] | None = None, model: str = "digest"
) -> tuple[PreferenceState[Any], str]:
    """State and preference by the recurrence over the whole history at once."""
    engine = DigestEngine(model=model)

    async def write(previous: str, block: Sequence[str]) -> str:
        items = [
            HistoryItem(f"title of {i}", (summaries or {}).get(i, f"summary of {i}")) for i in block
        ]
        return await engine.generate(preference_messages(previous, items), PREFERENCE_LIMITS)

    state = await recurrence.advance(PreferenceState(), tuple(item_ids), write=write)
    return state, await recurrence.current_preference(state, write=write)
