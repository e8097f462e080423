"""Compare what the store holds at the end with what was sent and with the offline recurrence."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.faults.digest_engine import DigestEngine
from services.core.prompts import PREFERENCE_LIMITS, HistoryItem, preference_messages
from services.core.records import Interaction, ItemId, UserId
from services.core.recurrence import PreferenceState, advance, current_preference
from services.state.records import UserRecord
from services.state.user_store import Store
from services.state.work_queue import load_backlog

STILL_SECONDS = 60.0
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Inconsistencies:
    """What went wrong: all empty if nothing did.

    lost: not in the user's history, or not covered by the preference. applied_twice: more
    than once in what it covers, or counted twice in the history's version.
    preferences_differ: users whose history's order, blocks' texts, tail or preference are not
    those of the offline recurrence.
    """

    lost: list[Interaction] = field(default_factory=list)
    applied_twice: list[Interaction] = field(default_factory=list)
    preferences_differ: list[UserId] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.applied_twice or self.preferences_differ)

    def print_faults(self) -> None:
        """Every interaction and user concerned, to stderr."""
        for what, interactions in (("lost", self.lost), ("applied twice", self.applied_twice)):
            for each in interactions:
                print(
                    f"{what}: user {each.user_id} item {each.item_id} event {each.event_id} "
                    f"at {each.timestamp_ms}",
                    file=sys.stderr,
                )
        for user_id in self.preferences_differ:
            print(f"differs from the offline recurrence: user {user_id}", file=sys.stderr)


async def check_consistency(
    store: Store, interactions: Sequence[Interaction], items: Mapping[ItemId, HistoryItem]
) -> Inconsistencies:
    """Compare every user once no update waits; RuntimeError if updating comes to a halt before."""
    await _wait_until_updated(store)
    sent: dict[UserId, list[Interaction]] = {}
    for interaction in interactions:
        sent.setdefault(interaction.user_id, []).append(interaction)
    records = await store.load_users(sent)
    inconsistencies = Inconsistencies()
    for user_id, history in sent.items():
        history.sort(key=lambda interaction: interaction.order)
        await _check_user(inconsistencies, user_id, history, records.get(user_id), items)
    return inconsistencies


async def _check_user(
    inconsistencies: Inconsistencies,
    user_id: UserId,
    sent: Sequence[Interaction],
    record: UserRecord | None,
    items: Mapping[ItemId, HistoryItem],
) -> None:
    if record is None:
        inconsistencies.lost += sent
        inconsistencies.preferences_differ.append(user_id)
        return
    held, covered = set(record.history), Counter(record.state.history)
    inconsistencies.lost += [each for each in sent if each not in held or not covered[each.item_id]]
    twice = [each for each in sent if covered[each.item_id] > 1]
    # A version that counts too much does not say which interaction was counted twice.
    inconsistencies.applied_twice += twice or (sent if record.version > len(sent) else [])
    state, preference = await _offline([each.item_id for each in sent], items)
    if (record.history, record.state, record.preference) != (tuple(sent), state, preference):
        inconsistencies.preferences_differ.append(user_id)


async def _offline(
    history: Sequence[ItemId], items: Mapping[ItemId, HistoryItem]
) -> tuple[PreferenceState[ItemId], str]:
    engine = DigestEngine()

    async def write(previous: str, block: Sequence[ItemId]) -> str:
        messages = preference_messages(previous, [items[item_id] for item_id in block])
        return await engine.generate(messages, PREFERENCE_LIMITS)

    state = await advance(PreferenceState[ItemId](), history, write=write)
    return state, await current_preference(state, write=write)


async def _wait_until_updated(store: Store) -> None:
    num_waiting, since = -1, time.monotonic()
    while num_waiting:
        backlog = await load_backlog(store.connection)
        if backlog.num_waiting != num_waiting:
            num_waiting, since = backlog.num_waiting, time.monotonic()
        elif time.monotonic() - since > STILL_SECONDS:
            raise RuntimeError(f"{num_waiting} updates wait and none was done in {STILL_SECONDS} s")
        await asyncio.sleep(_POLL_SECONDS)
