"""Users and items as the store returns them, and what it reports."""

from dataclasses import dataclass
from typing import Literal

from services.core.prompts import HistoryItem
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import PreferenceState
from services.core.wire.items import ItemStatus

Outcome = Literal["accepted", "duplicate", "rejected"]


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item with its summary. `version` is `item.version`, stored instead of hashed again.

    ready: `summary` is written. pending: a worker will write it. failed: the engine could not
    describe it (`reason`); such an item is described by its title alone, here and offline.
    `writer` is the identity of who described it, or failed to (`TextWriter`); "" if nobody did yet,
    or if an earlier version stored it. `cover` is what people are shown (`images.prepare_cover`);
    the store takes it, and gives it by itself.
    """

    item: Item
    version: str
    summary: str | None
    status: ItemStatus
    reason: str | None = None
    writer: str = ""
    cover: bytes | None = None

    @property
    def in_history(self) -> HistoryItem:
        """The item as preference prompts show it."""
        return HistoryItem(self.item.title, self.summary or "")


@dataclass(frozen=True, slots=True)
class Ingested:
    """The outcome of one interaction; `version` is the user's history version after the call."""

    outcome: Outcome
    version: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """The preference as it was after one full block. `number` counts from 1 over the whole life."""

    number: int
    item_ids: tuple[ItemId, ...]
    preference: str
    written_ms: int


@dataclass(frozen=True, slots=True)
class UserRecord:
    """Everything held of one user, read at one moment.

    `history` is oldest first. `version` counts the interactions ever accepted; `preference` covers
    the history as of `preference_version`. `revision` changes with every save (compare-and-set) and
    never repeats, not even after the user was forgotten. `writer` says who wrote the blocks
    (`preference_writer`), `text_writer` who wrote `preference`: another one while a long history is
    being written anew. Of a history longer than the cap, `num_dropped_blocks` blocks are gone from
    the front, and the first block that is left never changes again: the recurrence goes on from its
    text as if nothing were missing.
    """

    user_id: UserId
    history: tuple[Interaction, ...]
    state: PreferenceState[ItemId]
    preference: str
    version: int
    preference_version: int
    revision: int
    written_ms: tuple[int, ...] = ()
    writer: str = ""
    num_dropped_blocks: int = 0
    text_writer: str = ""

    def has_texts_of_others(self, writer: str) -> bool:
        """Whether there are texts, and not all of them are this writer's."""
        return bool({self.writer, self.text_writer} - {"", writer})

    @property
    def item_ids(self) -> tuple[ItemId, ...]:
        """The items of the history, oldest first, with repetitions."""
        return tuple(interaction.item_id for interaction in self.history)

    @property
    def timeline(self) -> tuple[TimelineEntry, ...]:
        """The preference after each full block, oldest first."""
        return tuple(
            TimelineEntry(number, block.elements, block.preference, written_ms)
            for number, (block, written_ms) in enumerate(
                zip(self.state.blocks, self.written_ms, strict=True),
                start=self.num_dropped_blocks + 1,
            )
        )


@dataclass(frozen=True, slots=True)
class UpdatedPreference:
    """What was made of a loaded record: the state, and the preference it gives.

    `preference` covers the history as of `preference_version`; while a long update is under way
    both stay as they were and only `state` gains blocks. `writer` wrote the state, `text_writer`
    the preference; None: the same.
    """

    record: UserRecord
    state: PreferenceState[ItemId]
    preference: str
    preference_version: int
    writer: str
    text_writer: str | None = None
