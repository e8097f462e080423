"""Users in Redis, with the items and cached scores: the state of API, worker and `msr publish`.

Each write is one script on one hash slot, so it happens completely or not at all. A lost race
raises StateConflict, a Redis that does not answer StateUnavailable.

    store = await Store.open("redis://localhost:6379/0")
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from services.core.errors import StateConflict
from services.core.records import Interaction, UserId
from services.core.recurrence import BLOCK_SIZE, PreferenceState, count_equal_leading
from services.state import keys
from services.state.connection import Argument, Call, Connection
from services.state.encoding import (
    decode_user,
    encode_preference,
    fault_of,
)
from services.state.item_store import ItemStore
from services.state.records import (
    Ingested,
    Outcome,
    UpdatedPreference,
    UserRecord,
)
from services.state.score_cache import ScoreCache

_NO_LIMIT = 2**53
_UNKNOWN_ITEM = "unknown item; put it into the catalogue first"
# Outcome and reason by the code that the script `ingest` gives an interaction.
_OUTCOMES: tuple[tuple[Outcome, str | None], ...] = (
    ("accepted", None),
    ("duplicate", None),
    ("rejected", "older than the interactions kept of this user"),
    ("rejected", "too many interactions of this user wait for an update; send it again later"),
)


class Store:
    """The online state. Safe for any number of tasks and processes at once."""

    def __init__(self, connection: Connection, *, history_cap: int = keys.HISTORY_CAP) -> None:
        """Use `open`. `history_cap` counts interactions a user."""
        self.connection = connection
        self.items = ItemStore(connection)
        self.scores = ScoreCache(connection)
        self._history_cap = history_cap

    @classmethod
    async def open(
        cls, url: str, *, timeout_seconds: float = 5.0, history_cap: int = keys.HISTORY_CAP
    ) -> "Store":
        """Connect; InputError for an invalid URL, StateUnavailable if no Redis answers."""
        connection = await Connection.open(url, timeout_seconds=timeout_seconds)
        return cls(connection, history_cap=history_cap)

    async def close(self) -> None:
        """Close all connections."""
        await self.connection.close()

    async def ping(self) -> None:
        """Raises StateUnavailable if Redis does not answer."""
        await self.connection.call("PING")

    # --- users -----------------------------------------------------------------------------------

    async def ingest(
        self, interactions: Sequence[Interaction], *, origin: str = ""
    ) -> list[Ingested]:
        """Add interactions to their users' histories and queue the updates; outcomes in order.

        One script call per user, all sent at once. An event id of a user is accepted once.
        `origin` reaches the worker as `Delivery.origin`.
        """
        known = await self.items.item_ids_known(i.item_id for i in interactions if not fault_of(i))
        refusals = {
            k: reason
            for k, i in enumerate(interactions)
            if (reason := fault_of(i) or (_UNKNOWN_ITEM if i.item_id not in known else None))
        }
        return await self._append(
            interactions,
            refusals,
            limit=keys.HISTORY_SLACK * self._history_cap,
            queue_updates=True,
            origin=origin,
        )

    async def append_history(self, interactions: Sequence[Interaction]) -> list[Ingested]:
        """As `ingest`, of items known to exist and without queueing updates (`msr publish`)."""
        refusals = {k: fault for k, i in enumerate(interactions) if (fault := fault_of(i))}
        return await self._append(interactions, refusals, limit=_NO_LIMIT, queue_updates=False)

    async def load_user(self, user_id: UserId) -> UserRecord | None:
        """Everything stored of one user, read at one moment; None for an unknown user."""
        return (await self.load_users([user_id])).get(user_id)

    async def load_users(self, user_ids: Iterable[UserId]) -> dict[UserId, UserRecord]:
        """Those of these users that are known, each read at one moment."""
        wanted = list(dict.fromkeys(user_ids))
        replies = await self.connection.run_all(
            "load_user",
            [((keys.user(u), keys.history(u), keys.preference(u)), ()) for u in wanted],
        )
        return {
            user_id: decode_user(user_id, reply)
            for user_id, reply in zip(wanted, replies, strict=True)
            if reply is not None
        }

    async def load_preference_version(self, user_id: UserId) -> int:
        """How many interactions the user's preference covers; 0 for an unknown user."""
        reply = await self.connection.call("HGET", keys.user(user_id), "folded_version")
        return 0 if reply is None else int(reply)

    async def load_versions(self, user_id: UserId) -> tuple[int, int] | None:
        """History and preference version; None for an unknown user. Cheap enough for polling."""
        reply = await self.connection.call("HMGET", keys.user(user_id), "version", "folded_version")
        return None if reply[0] is None else (int(reply[0]), int(reply[1] or 0))

    async def save_preference(self, update: UpdatedPreference) -> UserRecord:
        """Save an update of a record; returns the record as it is now.

        Once the preference covers the whole history, blocks beyond the history cap are dropped.
        Raises StateConflict if the user was saved or forgotten since the record was loaded.
        """
        saved = (await self.save_preferences([update]))[0]
        if saved is None:
            raise StateConflict(
                f"user {update.record.user_id!r} was saved or forgotten since revision "
                f"{update.record.revision}; load it again"
            )
        return saved

    async def save_preferences(
        self, updates: Sequence[UpdatedPreference]
    ) -> list[UserRecord | None]:
        """As `save_preference`, all sent at once; None in place of a conflict."""
        now_ms = time.time_ns() // 1_000_000
        records = [_merged(one, now_ms) for one in updates]
        replies = await self.connection.run_all(
            "save_preference",
            [
                _save_call(record, text_changed=record.preference != one.record.preference)
                for record, one in zip(records, updates, strict=True)
            ],
        )
        saved = [
            replace(record, revision=int(revision)) if revision else None
            for record, revision in zip(records, replies, strict=True)
        ]
        return [await self._drop_old_blocks(record) if record else None for record in saved]

    async def _drop_old_blocks(self, record: UserRecord) -> UserRecord:
        excess = len(record.history) - self._history_cap
        # The recurrence continues from the first block that is kept, so one must be kept.
        num_blocks = min(-(-excess // BLOCK_SIZE), len(record.state.blocks) - 1)
        if excess <= 0 or num_blocks <= 0 or record.preference_version < record.version:
            return record
        num_interactions = num_blocks * BLOCK_SIZE
        kept = replace(
            record,
            history=record.history[num_interactions:],
            state=PreferenceState(record.state.blocks[num_blocks:], record.state.tail),
            written_ms=record.written_ms[num_blocks:],
            num_dropped_blocks=record.num_dropped_blocks + num_blocks,
        )
        call = _save_call(kept, text_changed=False, dropped=record.history[:num_interactions])
        revision = (await self.connection.run_all("save_preference", [call]))[0]
        # An interaction arrived in between and won: the next save drops the blocks.
        return replace(kept, revision=int(revision)) if revision else record

    async def request_update(self, user_id: UserId, *, origin: str = "") -> bool:
        """Queue an update of one user; False if the preference already covers the history."""
        return (await self.request_updates([user_id], origin=origin))[0]

    async def request_updates(
        self, user_ids: Sequence[UserId], *, origin: str = "", anew: bool = False
    ) -> list[bool]:
        """As `request_update`, for several users sent at once.

        `anew`: also of those whose preference covers the history, for texts of another model.
        """
        replies = await self.connection.run_all(
            "request_update",
            [
                ((keys.user(u), keys.events(keys.partition_of(u))), (u, origin, int(anew)))
                for u in user_ids
            ],
        )
        return [bool(reply) for reply in replies]

    async def forget_user(self, user_id: UserId) -> bool:
        """Delete all data of a user, waiting work included; False if there was none.

        An update in flight cannot bring the user back: its save finds another revision.
        """
        partition = keys.partition_of(user_id)
        reply = await self.connection.run(
            "forget_user",
            [
                keys.events(partition),
                keys.dead_letters(partition),
                keys.user(user_id),
                keys.history(user_id),
                keys.preference(user_id),
                keys.scores(user_id),
                keys.shown(user_id),
                keys.lease(user_id),
            ],
            [user_id, keys.GROUP],
        )
        return bool(reply)

    async def _append(
        self,
        interactions: Sequence[Interaction],
        refusals: Mapping[int, str],
        *,
        limit: int,
        queue_updates: bool,
        origin: str = "",
    ) -> list[Ingested]:
        by_user: dict[UserId, list[int]] = {}
        for k, interaction in enumerate(interactions):
            if k not in refusals:
                by_user.setdefault(interaction.user_id, []).append(k)
        calls: list[Call] = []
        for user_id, places in by_user.items():
            facts: list[Argument] = []
            for k in places:
                one = interactions[k]
                facts += (one.event_id, one.timestamp_ms, one.item_id)
            names = (
                keys.user(user_id),
                keys.history(user_id),
                keys.preference(user_id),
                keys.events(keys.partition_of(user_id)),
            )
            # The first revision is random: a save that was loaded before a `forget_user` must not
            # match the user created after it.
            first_revision = secrets.randbelow(2**48) + 1
            arguments = (
                user_id,
                keys.USER_TTL_SECONDS,
                first_revision,
                limit,
                int(queue_updates),
                origin,
                *facts,
            )
            calls.append((names, arguments))
        replies = await self.connection.run_all("ingest", calls)
        outcomes = {k: Ingested("rejected", 0, reason) for k, reason in refusals.items()}
        for places, (version, *codes) in zip(by_user.values(), replies, strict=True):
            for k, code in zip(places, codes, strict=True):
                outcome, reason = _OUTCOMES[code]
                outcomes[k] = Ingested(outcome, version, reason)
        return [outcomes[k] for k in range(len(interactions))]

    # --- published artifacts ---------------------------------------------------------------------

    async def load_published(self) -> str:
        """The fingerprint last given to `save_published`; "" if nothing was published."""
        reply = await self.connection.call("GET", keys.PUBLISHED)
        return "" if reply is None else str(reply.decode())

    async def save_published(self, fingerprint: str) -> None:
        """Record that all artifacts of this fingerprint are in the store."""
        await self.connection.call("SET", keys.PUBLISHED, fingerprint)


# --- what is sent and what comes back -------------------------------------------------------------


def _merged(update: UpdatedPreference, now_ms: int) -> UserRecord:
    """The record after the save; unchanged blocks keep the time at which they were written."""
    record, blocks = update.record, update.state.blocks
    num_kept = count_equal_leading(record.state.blocks, blocks)
    return replace(
        record,
        state=update.state,
        preference=update.preference,
        preference_version=update.preference_version,
        writer=update.writer,
        text_writer=update.writer if update.text_writer is None else update.text_writer,
        written_ms=record.written_ms[:num_kept] + (now_ms,) * (len(blocks) - num_kept),
    )


def _save_call(
    record: UserRecord, *, text_changed: bool, dropped: Sequence[Interaction] = ()
) -> Call:
    user_id = record.user_id
    names = (
        keys.user(user_id),
        keys.history(user_id),
        keys.preference(user_id),
        keys.scores(user_id),
    )
    arguments: list[Argument] = [
        record.revision,
        record.preference_version,
        encode_preference(record),
        keys.USER_TTL_SECONDS,
        int(text_changed),
    ]
    if dropped:
        last_fixed = record.history[BLOCK_SIZE - 1]
        arguments += (record.version, last_fixed.timestamp_ms, last_fixed.event_id)
        arguments += (interaction.event_id for interaction in dropped)
    return names, arguments
