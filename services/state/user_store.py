"""Items, users and cached scores in Redis: what the API, the worker and `msr publish` share.

Each write is one script on one hash slot, so it happens whole or not at all. Whoever may lose a
race is told by StateConflict; a Redis that does not answer is StateUnavailable.

    store = await Store.open("redis://localhost:6379/0")
"""

import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from services.core.errors import StateConflict, UnknownUser
from services.core.prompts import HistoryItem
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import BLOCK_SIZE, PreferenceState, count_equal_leading
from services.state import keys
from services.state.connection import Argument, Command, Connection, Script
from services.state.encoding import (
    ITEM_FIELDS,
    decode_item,
    decode_margin,
    decode_status,
    decode_user,
    encode_margin,
    encode_preference,
    fault_of,
)
from services.state.records import (
    BacklogSize,
    Ingested,
    ItemRecord,
    ItemStatus,
    Server,
    TimelineEntry,
    UpdatedPreference,
    UserRecord,
)

__all__ = ["Ingested", "ItemRecord", "Store", "TimelineEntry", "UpdatedPreference", "UserRecord"]

_NO_LIMIT = 2**53
_DROPPED_TOO_LATE = "older than the interactions kept of this user"
_NO_ROOM = "too many interactions of this user wait for an update; send it again later"
_UNKNOWN_ITEM = "unknown item; put it into the catalogue first"


class Store:
    """The online state. Safe for any number of tasks and processes at once."""

    def __init__(self, connection: Connection, *, history_cap: int = keys.HISTORY_CAP) -> None:
        """Use `open`. `history_cap` counts interactions a user."""
        self.connection = connection
        self._history_cap = history_cap
        self._ingest = Script.read("ingest")
        self._load_user = Script.read("load_user")
        self._save_preference = Script.read("save_preference")
        self._request_update = Script.read("request_update")
        self._forget_user = Script.read("forget_user")
        self._save_scores = Script.read("save_scores")
        self._put_item = Script.read("put_item")
        self._settle_item = Script.read("settle_item")

    @classmethod
    async def open(
        cls, url: str, *, timeout_seconds: float = 5.0, history_cap: int = keys.HISTORY_CAP
    ) -> "Store":
        """Connect; InputError for a URL that is none, StateUnavailable if nothing answers."""
        connection = await Connection.open(url, timeout_seconds=timeout_seconds)
        return cls(connection, history_cap=history_cap)

    async def close(self) -> None:
        """Give the connections back."""
        await self.connection.close()

    async def ping(self) -> None:
        """Raises StateUnavailable if Redis does not answer."""
        await self.connection.call("PING")

    async def load_server(self) -> Server:
        """How Redis is (on a Redis Cluster: the one node that answers)."""
        info, (seconds, microseconds) = await self.connection.call_all([("INFO",), ("TIME",)])
        lines = info.decode(errors="replace").splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        written = (told.get("aof_last_write_status"), told.get("rdb_last_bgsave_status"))
        return Server(
            version=told.get("redis_version", ""),
            time_ms=1000 * int(seconds) + int(microseconds) / 1000,
            used_bytes=int(told.get("used_memory", 0)),
            max_bytes=int(told.get("maxmemory", 0)),
            eviction=told.get("maxmemory_policy", ""),
            num_clients=int(told.get("connected_clients", 0)),
            appends=told.get("aof_enabled") == "1",
            writes_to_disk="err" not in written,
            is_primary=told.get("role") != "slave",
            in_cluster=told.get("cluster_enabled") == "1",
        )

    # --- items -----------------------------------------------------------------------------------

    async def put_item(self, item: Item, *, summary: str | None, origin: str = "") -> ItemStatus:
        """Store one item and give its status; without a summary a worker is asked to write it.

        An unchanged item (same version) keeps the summary it has. `origin` as in `ingest`.
        """
        status: ItemStatus = "pending" if summary is None else "ready"
        record = ItemRecord(item, item.version, summary, status)
        return (await self.put_items([record], origin=origin))[0]

    async def put_items(
        self, records: Sequence[ItemRecord], *, origin: str = ""
    ) -> list[ItemStatus]:
        """Store items as described, all sent at once; gives their statuses in order."""
        calls: list[tuple[Sequence[str], Sequence[Argument]]] = []
        for record in records:
            item = record.item
            text = record.summary if record.status == "ready" else record.reason
            calls.append(
                (
                    (keys.item(item.item_id), keys.item_queue(keys.partition_of(item.item_id))),
                    (
                        item.item_id,
                        record.version,
                        item.title,
                        int(item.image is not None),
                        item.image or b"",
                        record.status,
                        text or "",
                        origin,
                    ),
                )
            )
        replies = await self.connection.run_all(self._put_item, calls)
        return [decode_status(reply) for reply in replies]

    async def load_items(
        self, item_ids: Iterable[ItemId], *, images: bool = True
    ) -> dict[ItemId, ItemRecord]:
        """The items that are known, with or without their pictures' bytes."""
        wanted = list(dict.fromkeys(item_ids))
        fields = (*ITEM_FIELDS, "image") if images else ITEM_FIELDS
        commands: list[Command] = [("HMGET", keys.item(item_id), *fields) for item_id in wanted]
        rows = await self.connection.call_all(commands)
        return {
            item_id: decode_item(item_id, row)
            for item_id, row in zip(wanted, rows, strict=True)
            if row[0] is not None
        }

    async def load_history_items(self, item_ids: Iterable[ItemId]) -> dict[ItemId, HistoryItem]:
        """What preference prompts say of these items; unknown and pending ones are left out."""
        records = await self.load_items(item_ids, images=False)
        return {
            item_id: record.history_item
            for item_id, record in records.items()
            if record.status != "pending"
        }

    async def item_ids_known(self, item_ids: Iterable[ItemId]) -> set[ItemId]:
        """Those of these items that the catalogue has."""
        wanted = list(dict.fromkeys(item_ids))
        found = await self.connection.call_all([("EXISTS", keys.item(i)) for i in wanted])
        return {item_id for item_id, exists in zip(wanted, found, strict=True) if exists}

    async def save_summary(self, item_id: ItemId, version: str, summary: str) -> bool:
        """Write a waiting item's summary; False if the item changed or went meanwhile."""
        return await self._settle(item_id, version, "ready", "summary", summary)

    async def fail_item(self, item_id: ItemId, version: str, reason: str) -> bool:
        """Record that an item cannot be summarized; False if it changed or went meanwhile."""
        return await self._settle(item_id, version, "failed", "reason", reason)

    async def delete_item(self, item_id: ItemId) -> bool:
        """Take an item out of the catalogue; False if it was not there.

        Texts already written keep what they say; histories keep the id, and updates leave it out.
        """
        return bool(await self.connection.call("DEL", keys.item(item_id)))

    async def _settle(
        self, item_id: ItemId, version: str, status: ItemStatus, field: str, text: str
    ) -> bool:
        arguments = (version, status, field, text)
        reply = await self.connection.run(self._settle_item, [keys.item(item_id)], arguments)
        return bool(reply)

    # --- users -----------------------------------------------------------------------------------

    async def ingest(
        self, interactions: Sequence[Interaction], *, origin: str = ""
    ) -> list[Ingested]:
        """Add interactions to their users' histories and queue the updates; outcomes in order.

        One script call a user, all sent at once. The same event id of a user is accepted once.
        `origin` is handed to the worker that updates them (`Delivery.origin`).
        """
        known = await self.item_ids_known(i.item_id for i in interactions if not fault_of(i))
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
        """Everything held of one user, read at one moment; None for a user without any."""
        return (await self.load_users([user_id])).get(user_id)

    async def load_users(self, user_ids: Iterable[UserId]) -> dict[UserId, UserRecord]:
        """The users that are known, each read at one moment."""
        wanted = list(dict.fromkeys(user_ids))
        replies = await self.connection.run_all(
            self._load_user,
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
        """History and preference version; None for an unknown user. Cheap enough to be polled."""
        reply = await self.connection.call("HMGET", keys.user(user_id), "version", "folded_version")
        return None if reply[0] is None else (int(reply[0]), int(reply[1] or 0))

    async def save_preference(self, update: UpdatedPreference) -> UserRecord:
        """Save an update of a record; gives the record as it is now.

        Once all is covered, blocks beyond the history cap are dropped. Raises StateConflict if the
        user was saved or forgotten since the record was loaded.
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
        """As `save_preference`, all sent at once; None in the place of a conflict."""
        now_ms = time.time_ns() // 1_000_000
        records = [_merged(one, now_ms) for one in updates]
        replies = await self.connection.run_all(
            self._save_preference,
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
        # The first block that stays is the one the recurrence goes on from, so one must stay.
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
        revision = (await self.connection.run_all(self._save_preference, [call]))[0]
        # Lost to an interaction that arrived in between: the next save drops the blocks.
        return replace(kept, revision=int(revision)) if revision else record

    async def request_update(self, user_id: UserId, *, origin: str = "") -> bool:
        """Ask the workers to update one user; False if the preference covers the history."""
        return (await self.request_updates([user_id], origin=origin))[0]

    async def request_updates(self, user_ids: Sequence[UserId], *, origin: str = "") -> list[bool]:
        """As `request_update`, for several users sent at once."""
        replies = await self.connection.run_all(
            self._request_update,
            [((keys.user(u), keys.events(keys.partition_of(u))), (u, origin)) for u in user_ids],
        )
        return [bool(reply) for reply in replies]

    async def load_backlog(self) -> BacklogSize:
        """What waits over all partitions, by Redis' own clock."""
        streams = [keys.events(partition) for partition in range(keys.NUM_PARTITIONS)]
        dead = [keys.dead_letters(partition) for partition in range(keys.NUM_PARTITIONS)]
        commands: list[Command] = [("TIME",)]
        commands += [("XLEN", stream) for stream in (*streams, *dead)]
        commands += [("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams]
        (seconds, microseconds), *replies = await self.connection.call_all(commands)
        now_ms = 1000 * int(seconds) + int(microseconds) // 1000
        lengths, firsts = replies[: 2 * len(streams)], replies[2 * len(streams) :]
        # An entry's id begins with the milliseconds at which it was added.
        oldest_ms = min(
            (int(first[0][0].split(b"-")[0]) for first in firsts if first), default=now_ms
        )
        return BacklogSize(
            num_waiting=sum(map(int, lengths[: len(streams)])),
            lag_seconds=max(0, now_ms - oldest_ms) / 1000,
            num_dead=sum(map(int, lengths[len(streams) :])),
        )

    async def forget_user(self, user_id: UserId) -> bool:
        """Remove every trace of a user, waiting work included; False if there was none.

        An update in flight cannot bring the user back: its save finds another revision.
        """
        partition = keys.partition_of(user_id)
        reply = await self.connection.run(
            self._forget_user,
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

    async def export_user(self, user_id: UserId) -> dict[str, Any]:
        """All that is held of a user, as plain values; UnknownUser if nothing is.

        Cached scores are margins by a digest of what they follow from.
        """
        partition = keys.partition_of(user_id)
        user = await self.load_user(user_id)
        if user is None:
            raise UnknownUser(f"nothing is held of user {user_id!r}")
        scores, shown, waiting, dead, lives = await self.connection.call_all(
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
                {
                    "item_id": each.item_id,
                    "timestamp_ms": each.timestamp_ms,
                    "event_id": each.event_id,
                }
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
        calls: list[tuple[Sequence[str], Sequence[Argument]]] = []
        for user_id, places in by_user.items():
            facts: list[Argument] = []
            for k in places:
                one = interactions[k]
                facts += (one.event_id, one.timestamp_ms, one.item_id)
            user_keys = (keys.user(user_id), keys.history(user_id), keys.preference(user_id))
            # A first revision that cannot be guessed: a save that was meant for the user before a
            # `forget_user` must not fit the one after it.
            first_revision = secrets.randbelow(2**48) + 1
            calls.append(
                (
                    (*user_keys, keys.events(keys.partition_of(user_id))),
                    (
                        user_id,
                        keys.USER_TTL_SECONDS,
                        first_revision,
                        limit,
                        int(queue_updates),
                        origin,
                        *facts,
                    ),
                )
            )
        replies = await self.connection.run_all(self._ingest, calls)
        outcomes = {k: Ingested("rejected", 0, reason) for k, reason in refusals.items()}
        for places, (version, *codes) in zip(by_user.values(), replies, strict=True):
            for k, code in zip(places, codes, strict=True):
                outcomes[k] = _ingested(code, version)
        return [outcomes[k] for k in range(len(interactions))]

    # --- published artifacts ---------------------------------------------------------------------

    async def load_published(self) -> str:
        """What `save_published` was last given; "" if nothing was published."""
        reply = await self.connection.call("GET", keys.PUBLISHED)
        return "" if reply is None else str(reply.decode())

    async def save_published(self, fingerprint: str) -> None:
        """Remember that the artifacts of this fingerprint are in the store, whole."""
        await self.connection.call("SET", keys.PUBLISHED, fingerprint)

    # --- score cache -----------------------------------------------------------------------------

    async def load_scores(self, user_id: UserId, score_keys: Collection[str]) -> dict[str, float]:
        """The margins remembered under these keys (see `keys.score_key`)."""
        wanted = list(score_keys)
        if not wanted:
            return {}
        found = await self.connection.call("HMGET", keys.scores(user_id), *wanted)
        return {
            key: decode_margin(data)
            for key, data in zip(wanted, found, strict=True)
            if data is not None
        }

    async def save_scores(self, user_id: UserId, margins: Mapping[str, float]) -> None:
        """Remember margins for a day; nothing is kept of a user without a history."""
        if not margins:
            return
        pairs = [part for key, margin in margins.items() for part in (key, encode_margin(margin))]
        await self.connection.run(
            self._save_scores,
            [keys.user(user_id), keys.scores(user_id)],
            [keys.SCORES_TTL_SECONDS, keys.SCORES_CAP, *pairs],
        )


# --- what is sent and what comes back -------------------------------------------------------------


def _count_of(user_id: UserId, entries: Sequence[Any]) -> int:
    """How many entries of a stream are this user's."""
    return sum([b"user_id", user_id.encode()] == fields[:2] for _, fields in entries)


def _ingested(code: int, version: int) -> Ingested:
    match code:
        case 0:
            return Ingested("accepted", version)
        case 1:
            return Ingested("duplicate", version)
        case 2:
            return Ingested("rejected", version, _DROPPED_TOO_LATE)
        case _:
            return Ingested("rejected", version, _NO_ROOM)


def _merged(update: UpdatedPreference, now_ms: int) -> UserRecord:
    """The record after the save; blocks that stand keep the time they were written."""
    record, blocks = update.record, update.state.blocks
    num_kept = count_equal_leading(record.state.blocks, blocks)
    return replace(
        record,
        state=update.state,
        preference=update.preference,
        preference_version=update.preference_version,
        writer=update.writer,
        written_ms=record.written_ms[:num_kept] + (now_ms,) * (len(blocks) - num_kept),
    )


def _save_call(
    record: UserRecord, *, text_changed: bool, dropped: Sequence[Interaction] = ()
) -> tuple[Sequence[str], Sequence[Argument]]:
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
