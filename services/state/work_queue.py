"""Who has to do what: streams of users to update and of items to summarize, and their leases.

Every partition has one stream of each kind, read by one consumer group. A delivery stays pending
until it is acknowledged; what a killed worker left pending is claimed by another. So work is
delivered at least once, and the saves (compare-and-set) make its effect happen once.

    work_queue = WorkQueue(store, consumer="worker-1")
    for delivery in await work_queue.read("users", count=1): ...
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.core.records import ItemId, UserId
from services.state import keys
from services.state.connection import Call, Command, Connection, GroupMissing
from services.state.user_store import Store

__all__ = ["DeadLetter", "Delivery", "GroupMissing", "Queue", "WorkQueue"]

Queue = Literal["users", "items"]
QUEUES: tuple[Queue, ...] = ("users", "items")
ALL_PARTITIONS = range(keys.NUM_PARTITIONS)

MAX_REASON_CHARS = 500
SILENT_CONSUMER_MS = 24 * 3600 * 1000
_SUBJECT_FIELD: dict[Queue, bytes] = {"users": b"user_id", "items": b"item_id"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry of a stream, delivered to this consumer: a user or item id and its version then.

    `num_deliveries` counts the deliveries of the entry, this one included. `origin` names the
    request that caused the work; "" if it is unknown or older code wrote the entry.
    """

    stream: str
    entry_id: str
    subject: str
    version: str
    num_deliveries: int = 1
    origin: str = ""

    @property
    def queued_ms(self) -> int:
        """When the entry was added, by the clock of Redis."""
        return int(self.entry_id.partition("-")[0])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A user whose update failed too often, and why; `entry_id` is its place in the stream."""

    entry_id: str
    user_id: UserId
    version: str
    reason: str
    failed_ms: int


@dataclass(frozen=True, slots=True)
class BacklogSize:
    """Updates that wait or are in a worker's hands, how long the oldest has, and those given up."""

    num_waiting: int
    lag_seconds: float
    num_dead: int


class WorkQueue:
    """The queues, as one consumer sees them."""

    def __init__(self, store: Store, *, consumer: str) -> None:
        """`consumer` names this process among all workers."""
        self.consumer = consumer
        self._connection = store.connection

    # --- taking work -----------------------------------------------------------------------------

    async def create_groups(self) -> None:
        """Create missing streams and consumer groups; waiting entries are kept."""
        await self._connection.create_groups(_streams(*QUEUES), keys.GROUP)
        await self._drop_consumers(leaving="")

    async def read(self, queue: Queue, *, count: int, block_seconds: float) -> list[Delivery]:
        """Up to `count` new entries per partition; waits up to `block_seconds` for the first."""
        streams = _streams(queue)
        # The client treats a longer silence as a dead connection.
        block_ms = int(1000 * min(block_seconds, self._connection.timeout_seconds / 2))
        group: Command = ("XREADGROUP", "GROUP", keys.GROUP, self.consumer, "COUNT", count)
        source: Command = ("BLOCK", max(1, block_ms), "STREAMS", *streams, *[">"] * len(streams))
        reply = await self._connection.call(*group, *source)
        return [
            _delivery(queue, stream.decode(), entry)
            for stream, entries in reply or []
            for entry in entries
        ]

    async def claim(self, queue: Queue, *, idle_seconds: float, count: int) -> list[Delivery]:
        """Up to `count` entries per partition, delivered to a consumer but idle for so long."""
        streams = _streams(queue)
        idle_ms = int(1000 * idle_seconds)
        commands: list[Command] = [
            ("XAUTOCLAIM", s, keys.GROUP, self.consumer, idle_ms, "0-0", "COUNT", count)
            for s in streams
        ]
        replies = await self._connection.call_all(commands)
        claimed = [
            (stream, entry)
            for stream, reply in zip(streams, replies, strict=True)
            for entry in reply[1]
            if entry is not None  # Redis 6 returns None for entries deleted while pending
        ]
        counts = await self._connection.call_all(
            [("XPENDING", stream, keys.GROUP, e[0], e[0], 1) for stream, e in claimed]
        )
        return [
            _delivery(queue, stream, entry, pending[0][3] if pending else 1)
            for (stream, entry), pending in zip(claimed, counts, strict=True)
        ]

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Reset the idle time of these entries, so that no other consumer claims them."""
        await self._connection.call_all(
            [
                ("XCLAIM", stream, keys.GROUP, self.consumer, 0, *entry_ids, "JUSTID")
                for stream, entry_ids in _by_stream(deliveries).items()
            ]
        )

    # --- settling it -----------------------------------------------------------------------------

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Remove finished work from its stream."""
        for stream, entry_ids in _by_stream(deliveries).items():
            await self._connection.call_all(
                [("XACK", stream, keys.GROUP, *entry_ids), ("XDEL", stream, *entry_ids)],
                atomic=True,
            )

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Move one user's deliveries to the dead letters, with the reason."""
        newest = max(deliveries, key=lambda delivery: int(delivery.version))
        user_id = UserId(newest.subject)
        partition = keys.partition_of(user_id)
        await self._connection.run(
            "dead_letter",
            [keys.events(partition), keys.dead_letters(partition), keys.user(user_id)],
            [
                keys.GROUP,
                keys.DEAD_LETTER_CAP,
                user_id,
                newest.version,
                reason[:MAX_REASON_CHARS],
                time.time_ns() // 1_000_000,
                *[delivery.entry_id for delivery in deliveries],
            ],
        )

    async def dead_letters(self) -> list[DeadLetter]:
        """All dead letters, oldest first within a partition."""
        replies = await self._connection.call_all(
            [("XRANGE", keys.dead_letters(partition), "-", "+") for partition in ALL_PARTITIONS]
        )
        return [_dead_letter(entry) for reply in replies for entry in reply]

    async def retry_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Queue the updates of these users again; how many were still put aside.

        A user who was forgotten meanwhile is not queued.
        """
        calls: list[Call] = []
        for each in letters:
            partition = keys.partition_of(each.user_id)
            names = (keys.dead_letters(partition), keys.events(partition), keys.user(each.user_id))
            calls.append((names, (each.entry_id, each.user_id)))
        return sum(map(int, await self._connection.run_all("retry_dead_letter", calls)))

    async def drop_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Give these updates up for good; how many were still put aside.

        Histories stay: the next interaction of such a user updates with everything.
        """
        replies = await self._connection.call_all(
            [
                ("XDEL", keys.dead_letters(keys.partition_of(each.user_id)), each.entry_id)
                for each in letters
            ]
        )
        return sum(map(int, replies))

    async def count_user_failure(self, user_id: UserId) -> int:
        """How often in a row the update of this user has failed now; 0 for a forgotten user."""
        return int(await self._connection.run("count_failure", [keys.user(user_id)]))

    async def count_item_failure(self, item_id: ItemId) -> int:
        """How often in a row the summary of this item has failed now; 0 for a deleted item."""
        return int(await self._connection.run("count_failure", [keys.item(item_id)]))

    async def leave(self) -> None:
        """Remove this consumer from the groups in which it has no pending work."""
        await self._drop_consumers(leaving=self.consumer)

    async def _drop_consumers(self, *, leaving: str) -> None:
        arguments = (keys.GROUP, leaving, SILENT_CONSUMER_MS)
        calls = [((stream,), arguments) for stream in _streams(*QUEUES)]
        await self._connection.run_all("drop_consumers", calls)

    # --- one worker a user -----------------------------------------------------------------------

    async def acquire_lease(self, user_id: UserId, token: str, *, seconds: float) -> bool:
        """Whether this token may update the user now, for so long."""
        reply = await self._connection.call(
            "SET", keys.lease(user_id), token, "NX", "PX", int(1000 * seconds)
        )
        return reply is not None

    async def renew_leases(self, tokens: Mapping[UserId, str], *, seconds: float) -> None:
        """Extend leases that are still held; if one was lost, work is at worst done twice."""
        milliseconds = int(1000 * seconds)
        await self._connection.run_all(
            "renew_lease",
            [((keys.lease(user_id),), (token, milliseconds)) for user_id, token in tokens.items()],
        )

    async def release_lease(self, user_id: UserId, token: str) -> None:
        """Release a lease if this token still holds it."""
        await self._connection.run("release_lease", [keys.lease(user_id)], [token])


async def load_backlog(connection: Connection) -> BacklogSize:
    """The work that waits in all partitions, by the clock of Redis."""
    streams = _streams("users")
    dead = [keys.dead_letters(partition) for partition in ALL_PARTITIONS]
    commands: list[Command] = [("TIME",)]
    commands += [("XLEN", stream) for stream in (*streams, *dead)]
    commands += [("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams]
    (seconds, microseconds), *replies = await connection.call_all(commands)
    now_ms = 1000 * int(seconds) + int(microseconds) // 1000
    lengths, firsts = replies[: 2 * len(streams)], replies[2 * len(streams) :]
    # An entry's id begins with the milliseconds at which it was added.
    oldest_ms = min((int(first[0][0].split(b"-")[0]) for first in firsts if first), default=now_ms)
    return BacklogSize(
        num_waiting=sum(map(int, lengths[: len(streams)])),
        lag_seconds=max(0, now_ms - oldest_ms) / 1000,
        num_dead=sum(map(int, lengths[len(streams) :])),
    )


def _streams(*queues: Queue) -> list[str]:
    """All streams of these queues."""
    key_of = {"users": keys.events, "items": keys.item_queue}
    return [key_of[queue](partition) for queue in queues for partition in ALL_PARTITIONS]


def _by_stream(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    entry_ids: dict[str, list[str]] = {}
    for delivery in deliveries:
        entry_ids.setdefault(delivery.stream, []).append(delivery.entry_id)
    return entry_ids


def _delivery(queue: Queue, stream: str, entry: list[Any], num_deliveries: int = 1) -> Delivery:
    fields = _fields(entry)
    subject, version = fields[_SUBJECT_FIELD[queue]], fields[b"version"]
    return Delivery(
        stream=stream,
        entry_id=entry[0].decode(),
        subject=subject.decode(),
        version=version.decode(),
        num_deliveries=int(num_deliveries),
        origin=fields.get(b"origin", b"").decode(errors="replace"),
    )


def _dead_letter(entry: list[Any]) -> DeadLetter:
    fields = {name.decode(): value.decode() for name, value in _fields(entry).items()}
    return DeadLetter(
        entry[0].decode(),
        UserId(fields["user_id"]),
        fields["version"],
        fields["reason"],
        int(fields["failed_ms"]),
    )


def _fields(entry: list[Any]) -> dict[bytes, bytes]:
    return dict(zip(entry[1][::2], entry[1][1::2], strict=True))
