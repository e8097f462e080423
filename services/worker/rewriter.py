"""Writes the texts of another model anew: all items, then all users.

After `--accept-other-texts` these are all texts that Redis holds. Without it, they are those that
another model left behind in texts that are this worker's own (`batch/publish.py` notes them).

Until its turn a text stays as it is and is served, marked as another model's. Users with traffic
do not wait for their turn: their updates go through the queue (an interaction, or a recommendation
that met such a text), and an update first writes the items of its history anew. Of the others,
those with the newest interactions come first.

One process rewrites at a time, by a lease. A rewriter of another model is refused while it is held.
If this process dies, the next one continues: what is left is seen from the texts themselves.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from services.core.data_folder.text_writers import TextWriters
from services.core.errors import ArtifactMismatch, StateUnavailable
from services.core.records import ItemId, UserId
from services.state.texts.published_texts import PublishedTexts
from services.state.texts.stored_texts import StoredTexts, TextSurvey
from services.state.texts.text_origins import RewriterLease, Rewriting, TextOrigins
from services.state.user_store import Store
from services.worker.item_summarizer import Summarizer
from services.worker.limits import WorkerLimits
from services.worker.preference_updater import PreferenceUpdater
from services.worker.queue_consumer import TRANSIENT_ERRORS, GaveUp, TryLater, sleep_unless

log = structlog.get_logger(__name__)

Id = TypeVar("Id", ItemId, UserId)


@dataclass(eq=False, slots=True)
class Rewriter:
    """Rewrites by this worker's summarizer and updater, which know whose texts are due.

    `lease` names this process and its writers. Unless it `accepts_others`, it only writes what
    others left behind in texts that were published as its own.
    """

    store: Store
    summarizer: Summarizer
    updater: PreferenceUpdater
    limits: WorkerLimits
    lease: RewriterLease
    accepts_others: bool = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: look whether Redis holds texts of another model, and write them anew.

        Raises ArtifactMismatch while a rewriter of another model is at work.
        """
        origins = TextOrigins(self.store.connection)
        num_tries = 0
        try:
            while not stop.is_set():
                try:
                    if await self._is_needed(origins) and await self._hold_lease(origins):
                        await self._rewrite(origins, stop)
                    num_tries = 0
                except TRANSIENT_ERRORS as error:
                    num_tries += 1
                    log.warning("rewriting_postponed", reason=str(error), num_tries=num_tries)
                    await sleep_unless(stop, self.limits.pause_seconds(num_tries))
                else:
                    await sleep_unless(stop, self.limits.look_for_texts_seconds)
        finally:
            with contextlib.suppress(StateUnavailable):
                await origins.release_lease(self.lease)

    async def _is_needed(self, origins: TextOrigins) -> bool:
        """Whether Redis holds texts of another model, or of nobody knows whom."""
        note = await origins.load()
        if note is None:
            needed = self.accepts_others and await has_unknown_texts(self.store)
        elif self.own.differing(note.writers):
            needed = self.accepts_others
        else:
            left = note.rewriting
            needed = left is not None and not self.own.differing(left.writers)
        self.summarizer.rewrites_unknown = needed
        return needed

    async def _hold_lease(self, origins: TextOrigins) -> bool:
        """Whether this process is the one that rewrites."""
        holder = await origins.hold_lease(self.lease, seconds=self.limits.rewriter_seconds)
        if self.own.differing(holder.writers):
            raise ArtifactMismatch(
                f"texts are being written anew by another model: "
                f"{self.own.difference(holder.writers)}; stop the workers of one of the two"
            )
        return holder == self.lease

    @property
    def own(self) -> TextWriters:
        """Who writes in this process."""
        return self.lease.writers

    # --- one pass --------------------------------------------------------------------------------

    async def _rewrite(self, origins: TextOrigins, stop: asyncio.Event) -> None:
        """One pass over everything. Raises TRANSIENT_ERRORS when engine or store are away.

        What could not be done now, because another worker has it or a try failed, is left for the
        next pass. Users whose update was given up keep their text, marked as another model's.
        """
        before, own, found = await origins.load(), self.own, await self._survey()
        items, users, name = found.due_items, found.due_users, str(own.summaries)
        log.info("texts_being_rewritten", model=name, items=len(items), users=len(users))

        async def note(items_left: int, users_left: int) -> None:
            await self._hold_lease(origins)
            await origins.save_rewriting(
                Rewriting(own, found.num_items, items_left, found.num_users, users_left)
            )

        async def settle(item_id: ItemId) -> None:
            with contextlib.suppress(TryLater):
                await self.summarizer.settle(item_id)

        given_up: set[UserId] = set()

        async def update(user_id: UserId) -> None:
            try:
                await self.updater.update(user_id)
            except TryLater:
                return
            except GaveUp:
                given_up.add(user_id)

        await note(len(items), len(users))
        await self._each(items, settle, stop, lambda left: note(left, len(users)))
        await self._each(users, update, stop, lambda left: note(0, left))
        if stop.is_set():
            return
        after = await self._survey()
        if after.due_items or set(after.due_users) - given_up:
            return
        if await origins.finish_rewriting(before, own):
            await PublishedTexts(self.store.connection).save_statistics(after.statistics)
            self.summarizer.rewrites_unknown = False
            num = {"items": after.num_items, "users": after.num_users, "given_up": len(given_up)}
            log.info("texts_rewritten", model=name, **num)
            await origins.release_lease(self.lease)

    async def _each(
        self,
        ids: Sequence[Id],
        work: Callable[[Id], Awaitable[None]],
        stop: asyncio.Event,
        note: Callable[[int], Awaitable[None]],
    ) -> None:
        """Do the work for each id, some at once; note after each step how many are left."""
        size = self.limits.num_rewritten_at_once
        for start in range(0, len(ids), size):
            if stop.is_set():
                return
            await _together(work(each) for each in ids[start : start + size])
            await note(max(0, len(ids) - start - size))

    async def _survey(self) -> TextSurvey:
        """What this worker's model has not written is due."""
        writer = self.updater.writer
        return await StoredTexts(self.store).survey(
            self.summarizer.is_due, lambda user: user.has_texts_of_others(writer)
        )


async def _together(work: Iterable[Awaitable[object]]) -> None:
    """Wait for all, then raise the first error: a step is never left running."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def refuse_other_texts(
    store: Store, own: TextWriters, limits: WorkerLimits, stop: asyncio.Event
) -> None:
    """For a worker that does not accept them: `require_own_texts` again and again until `stop`."""
    while not stop.is_set():
        with contextlib.suppress(StateUnavailable):  # the consumers log it
            await require_own_texts(store, own)
        await sleep_unless(stop, limits.look_for_texts_seconds)


async def require_own_texts(store: Store, own: TextWriters) -> None:
    """ArtifactMismatch if Redis holds texts of another model, or one is writing them anew."""
    note = await TextOrigins(store.connection).load()
    if note is not None:
        own.require(note.writers)
        if note.rewriting is not None:
            own.require(note.rewriting.writers)


async def has_unknown_texts(store: Store) -> bool:
    """Whether an earlier version published texts, so that no note says who wrote them."""
    return await TextOrigins(store.connection).load() is None and bool(await store.load_published())
