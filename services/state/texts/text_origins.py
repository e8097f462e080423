"""Who wrote the texts that Redis holds, and whether they are being written anew.

One hash, `msr:texts`, says it for all processes: `msr publish` and the API set it with the texts
that they load, a worker's rewriter when it begins, at every step and at its end. A Redis that an
earlier version filled has no such note; then nobody knows.

A second key names the model that writes texts anew at the moment. It expires, so that the rewriter
of a killed worker is followed by another one. While it lives, a rewriter of another model is
refused: two of them would write each other's texts anew for ever.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from services.core.data_folder.text_writers import TextWriter, TextWriters
from services.core.errors import StateError
from services.state import keys
from services.state.connection import Connection

_SUMMARIES, _PREFERENCES, _REWRITING = "summaries", "preferences", "rewriting"


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Texts are being written anew: by whom, how many there are, and how many are left."""

    writers: TextWriters
    num_items: int = 0
    num_items_left: int = 0
    num_users: int = 0
    num_users_left: int = 0


@dataclass(frozen=True, slots=True)
class TextNote:
    """`writers` wrote the texts, but for those that `rewriting` has written anew already."""

    writers: TextWriters
    rewriting: Rewriting | None = None


@dataclass(frozen=True, slots=True)
class RewriterLease:
    """The process that writes texts anew, and by which models."""

    writers: TextWriters
    process: str


class TextOrigins:
    """The note and the rewriter's lease."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def load(self) -> TextNote | None:
        """The note; None if there is none."""
        fields = (_SUMMARIES, _PREFERENCES, _REWRITING)
        summaries, preferences, rewriting = await self._connection.call(
            "HMGET", keys.TEXTS, *fields
        )
        if summaries is None:
            return None
        return TextNote(
            TextWriters(
                _read_writer(_object(summaries)),
                None if preferences is None else _read_writer(_object(preferences)),
            ),
            None if rewriting is None else _decode_rewriting(_object(rewriting)),
        )

    async def save_published(
        self, writers: TextWriters, rewriting: Rewriting | None = None
    ) -> None:
        """Note the writers of texts that are loaded into Redis now; `rewriting` if Redis may also
        hold texts of others.
        """
        written = [_SUMMARIES, _encode(writers.summaries)]
        if writers.preferences is not None:
            written += [_PREFERENCES, _encode(writers.preferences)]
        if rewriting is not None:
            written += [_REWRITING, _encode(rewriting)]
        await self._connection.call_all(
            [
                ("HDEL", keys.TEXTS, _PREFERENCES, _REWRITING),
                ("HSET", keys.TEXTS, *written),
            ],
            atomic=True,
        )

    async def save_rewriting(self, rewriting: Rewriting) -> None:
        """Note how far the rewriting is."""
        await self._connection.call("HSET", keys.TEXTS, _REWRITING, _encode(rewriting))

    async def finish_rewriting(self, before: TextNote | None, after: TextWriters) -> bool:
        """Note that all texts are the new writers'; False if others were published meanwhile."""
        expected = _encode(before.writers.summaries) if before is not None else ""
        fields = [_encode(after.summaries), _encode(after.preferences or TextWriter())]
        return bool(
            await self._connection.run("finish_rewriting", [keys.TEXTS], [expected, *fields])
        )

    async def hold_lease(self, lease: RewriterLease, *, seconds: float) -> RewriterLease:
        """Take or extend the rewriter's lease; returns the one that is held now."""
        milliseconds = int(1000 * seconds)
        reply = await self._connection.run(
            "hold_rewriter", [keys.REWRITER], [_encode(lease), milliseconds]
        )
        holder = _object(reply)
        return RewriterLease(_read_writers(holder), str(holder.get("process", "")))

    async def release_lease(self, lease: RewriterLease) -> None:
        """Let another process rewrite at once."""
        await self._connection.run("release_lease", [keys.REWRITER], [_encode(lease)])


def _encode(value: TextWriter | Rewriting | RewriterLease) -> str:
    return json.dumps(asdict(value), sort_keys=True, ensure_ascii=False)


def _object(value: bytes) -> dict[str, Any]:
    try:
        found = json.loads(value)
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise StateError(
        "Redis holds a note on its texts that cannot be read; it was written by other code: delete "
        f"it by DEL {keys.TEXTS}, and start `msr serve` again"
    )


def _read_writer(found: dict[str, Any]) -> TextWriter:
    return TextWriter(str(found.get("identity", "")), str(found.get("name", "")))


def _read_writers(found: dict[str, Any]) -> TextWriters:
    """Those of a rewriting or a lease."""
    writers = found.get("writers") or {}
    preferences = writers.get(_PREFERENCES)
    return TextWriters(
        _read_writer(writers.get(_SUMMARIES) or {}), preferences and _read_writer(preferences)
    )


def _decode_rewriting(found: dict[str, Any]) -> Rewriting:
    counts = ("num_items", "num_items_left", "num_users", "num_users_left")
    return Rewriting(_read_writers(found), *(int(found.get(name, 0)) for name in counts))
