"""`msr publish`: loads the artifacts into Redis, for the API and the worker.

Reads `items`, `summaries`, `interactions` and, if finished, `preferences-whole` or else
`preferences`. An item without a summary (quarantined by step 2) is published as failed and
described by its title alone, as step 3 did. A published preference is a state of the recurrence;
where it does not cover the whole history, an update is queued. Users without a preference row get
their history only: the worker updates them at their next interaction or request.

How much the texts vary is noted beside them, for whoever serves them (`state/texts/`).

Publishing unchanged artifacts again does nothing. Publishing changed ones adds what is new: online
interactions stay, and so do texts whose blocks did not change. A forgotten user (`DELETE /users`)
comes back if the artifacts still hold the history, so delete it from the data set too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tqdm import tqdm

from services.core.artifacts import Artifact, Manifest
from services.core.data_folder.steps import SERVED_PREFERENCES, STEPS
from services.core.data_folder.text_statistics import TextStatistics
from services.core.data_folder.text_writers import TextWriters
from services.core.errors import ArtifactMismatch
from services.core.fingerprint import fingerprint
from services.core.ids import derive_event_id
from services.core.prompts import PREFERENCE_FINGERPRINT
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import (
    BLOCK_SIZE,
    PreferenceState,
    WrittenBlock,
    count_current_blocks,
    split_blocks,
)
from services.state.records import ItemRecord, UpdatedPreference, UserRecord
from services.state.texts.published_texts import PublishedTexts
from services.state.texts.stored_texts import StoredTexts
from services.state.texts.text_origins import Rewriting, TextNote, TextOrigins
from services.state.user_store import Store

ITEMS_AT_ONCE = 50  # images and covers of about 150 KB an item, and a busy disk behind Redis
USERS_AT_ONCE = 500
NO_SUMMARY = "no summary in the artifact; run `msr summarize-images --retry-quarantined`"


@dataclass(frozen=True)
class _Sources:
    """The artifacts to publish, made from each other."""

    items: Artifact
    summaries: Artifact
    interactions: Artifact
    preferences: Artifact | None

    @property
    def fingerprint(self) -> str:
        # Of whole manifests, because a retry of the quarantine changes counts but not the recipe.
        present = [self.items, self.summaries, self.interactions, self.preferences]
        made_of = {a.name: a.manifest().content() for a in present if a is not None}
        if self.has_covers:  # which no manifest says, so that older items stay finished
            made_of["items"]["has_covers"] = True
        return fingerprint(made_of)

    @cached_property
    def has_covers(self) -> bool:
        """Whether the items have covers for people; those of earlier versions have none."""
        return self.items.has_column("cover")

    @property
    def writers(self) -> TextWriters:
        """Who wrote the texts."""
        preferences = self.preferences.manifest().writer if self.preferences else None
        return TextWriters(self.summaries.manifest().writer, preferences)

    def text_statistics(self) -> list[TextStatistics]:
        """Of the summaries and, if there are some, of the preferences."""
        found = [a.text_statistics() for a in (self.summaries, self.preferences) if a is not None]
        return [each for each in found if each is not None]


async def run(data: str, store: Store, *, keep_rewritten: bool = False) -> dict[str, int]:
    """Put the artifacts of `data` into the store; counts of what they hold and of queued updates.

    Texts that another model has written anew since are put back, unless `keep_rewritten`. Those
    that it wrote of newer items and users are left to a worker, and noted.

    Raises ArtifactMissing if a step has not run, ArtifactMismatch if one must run again.
    """
    sources = _open_sources(data)
    histories = sources.interactions.manifest().counts
    counts = {
        "items": sources.items.manifest().counts["items"],
        "interactions": histories["interactions"],
        "users": histories["users"],
        "preferences": 0,
        "queued": 0,
        "published_before": 0,
    }
    if sources.preferences is not None:
        counts["preferences"] = sources.preferences.manifest().counts["users"]
    statistics, origins = PublishedTexts(store.connection), TextOrigins(store.connection)
    note = await origins.load()
    if await store.load_published() == sources.fingerprint:
        if note is None:  # an older version published them
            await origins.save_published(sources.writers)
            await statistics.save_statistics(sources.text_statistics())
        if note is None or keep_rewritten or note == TextNote(sources.writers):
            return counts | {"published_before": 1}
    may_hold_others = note is not None and note != TextNote(sources.writers)
    # Noted before and cleared behind all others, so that a publication that was killed goes on.
    await origins.save_published(
        sources.writers, Rewriting(sources.writers) if may_hold_others else None
    )
    await _publish_items(sources, store)
    await _publish_histories(sources, store)
    if sources.preferences is not None:
        counts["queued"] = await _publish_preferences(sources, store)
    await statistics.save_statistics(sources.text_statistics())
    await store.save_published(sources.fingerprint)
    if may_hold_others:
        await origins.save_published(
            sources.writers, await _texts_of_others(store, sources.writers)
        )
    return counts


async def _texts_of_others(store: Store, own: TextWriters) -> Rewriting | None:
    """How many texts of other writers the store holds still; None if there are none."""
    found = await StoredTexts(store).survey(
        lambda item: item.writer not in ("", own.summaries.identity),
        lambda user: (
            own.preferences is not None and user.has_texts_of_others(own.preferences.identity)
        ),
    )
    items, users = len(found.due_items), len(found.due_users)
    if not (items or users):
        return None
    return Rewriting(own, found.num_items, items, found.num_users, users)


def writers_in(data: str) -> TextWriters:
    """Who wrote the texts that `run` would publish; raises what `run` raises."""
    return _open_sources(data).writers


async def note_on(data: str, store: Store) -> TextNote | None:
    """The note on the texts in the store, if they are those of `data`; None if there is none."""
    if await store.load_published() != _open_sources(data).fingerprint:
        return None
    return await TextOrigins(store.connection).load()


# --- the artifacts -------------------------------------------------------------------------------


def _open_sources(data: str) -> _Sources:
    items, summaries, interactions = (
        Artifact(data, name) for name in ("items", "summaries", "interactions")
    )
    for artifact in (items, interactions):
        artifact.manifest()  # an error names the first missing step
    _require_inputs(data, summaries)
    preferences = None
    for name in SERVED_PREFERENCES:
        candidate = Artifact(data, name)
        if candidate.exists():
            _require_inputs(data, candidate)
            _require_definition(candidate.manifest())
            preferences = candidate
            break
    return _Sources(items, summaries, interactions, preferences)


def _require_inputs(data: str, artifact: Artifact) -> None:
    step = STEPS[artifact.name]
    for name in step.inputs:
        if artifact.manifest().inputs.get(name) != Artifact(data, name).manifest().fingerprint:
            raise ArtifactMismatch(
                f"{artifact.location} was made from other {name} than the data folder has now; "
                f"run `msr {step.command}` again"
            )


def _require_definition(manifest: Manifest) -> None:
    asked = {
        "prompt": PREFERENCE_FINGERPRINT,
        "block_size": BLOCK_SIZE,
        "variant": "recurrent",
    }
    found = {name: manifest.definition.get(name) for name in asked}
    if found != asked:
        raise ArtifactMismatch(
            f"these preferences were made by {found}, this code updates by {asked}; "
            "run `msr build-preferences` again"
        )


def _rows(
    artifact: Artifact, columns: list[str], num_at_once: int, *, desc: str, unit: str
) -> Iterator[list[Any]]:
    """Rows of an artifact, some at once, under a progress bar."""
    total = artifact.manifest().counts[f"{unit}s"]
    with tqdm(total=total, desc=desc, unit=unit) as progress:
        for table in artifact.shards(columns):
            for batch in table.to_batches(max_chunksize=num_at_once):
                yield batch.to_pylist()
                progress.update(len(batch))


# --- items and histories -------------------------------------------------------------------------


async def _publish_items(sources: _Sources, store: Store) -> None:
    summaries = {
        (row["item_id"], row["version"]): row["summary"]
        for table in sources.summaries.shards(["item_id", "version", "summary"])
        for row in table.to_pylist()
    }
    reasons = {row["row"]: row["reason"] for row in sources.summaries.manifest().quarantined}
    columns = ["item_id", "title", "image", "version", *(["cover"] * sources.has_covers)]
    writer = sources.writers.summaries
    for rows in _rows(sources.items, columns, ITEMS_AT_ONCE, desc="publish items", unit="item"):
        await store.items.put_items(
            [_item_record(row, summaries, reasons, writer.identity) for row in rows]
        )


def _item_record(
    row: Mapping[str, Any],
    summaries: Mapping[tuple[str, str], str],
    reasons: Mapping[str, str],
    writer: str,
) -> ItemRecord:
    item_id, version = ItemId(row["item_id"]), row["version"]
    item = Item(item_id, row["title"], row["image"])
    summary = summaries.get((item_id, version))
    if summary is None:
        reason = reasons.get(item_id, NO_SUMMARY)
        return ItemRecord(item, version, None, "failed", reason, writer, row.get("cover"))
    return ItemRecord(item, version, summary, "ready", writer=writer, cover=row.get("cover"))


async def _publish_histories(sources: _Sources, store: Store) -> None:
    columns = ["user_id", "item_ids", "timestamps_ms"]
    for rows in _rows(
        sources.interactions, columns, USERS_AT_ONCE, desc="publish histories", unit="user"
    ):
        await store.append_history(
            [interaction for row in rows for interaction in _interactions(row)]
        )


def _interactions(row: Mapping[str, Any]) -> Iterator[Interaction]:
    user_id = UserId(row["user_id"])
    for item_id, timestamp_ms in zip(row["item_ids"], row["timestamps_ms"], strict=True):
        event_id = derive_event_id(user_id, item_id, timestamp_ms)
        yield Interaction(user_id, item_id, timestamp_ms, event_id)


# --- preferences ---------------------------------------------------------------------------------


async def _publish_preferences(sources: _Sources, store: Store) -> int:
    """Put preferences into the store; how many users have interactions they do not cover."""
    preferences, written_by = sources.preferences, sources.writers.preferences
    assert preferences is not None
    assert written_by is not None
    writer = written_by.identity
    num_queued = 0
    columns = ["user_id", "item_ids", "block_preferences", "preference"]
    for rows in _rows(preferences, columns, USERS_AT_ONCE, desc="publish preferences", unit="user"):
        records = await store.load_users(UserId(row["user_id"]) for row in rows)
        merged = [
            _merged(records[row["user_id"]], row, writer)
            for row in rows
            if row["user_id"] in records
        ]
        # A conflict means that a worker updates this user at the moment: its text is newer.
        await store.save_preferences([update for update in merged if update is not None])
        num_queued += sum(await store.request_updates(list(records)))
    return num_queued


def _merged(record: UserRecord, row: Mapping[str, Any], writer: str) -> UpdatedPreference | None:
    """The published state as far as the history agrees with it, or None if the stored one is ahead.

    The history may have gained interactions online, also ones older than published ones.
    """
    published, item_ids = row["item_ids"], record.item_ids
    if record.num_dropped_blocks:  # a capped history no longer starts where the artifact's does
        return None
    blocks = tuple(
        WrittenBlock(elements, text)
        for elements, text in zip(split_blocks(published)[0], row["block_preferences"], strict=True)
    )
    num_current = count_current_blocks(blocks, item_ids)
    if tuple(published) == item_ids[: len(published)]:
        state = PreferenceState(blocks, split_blocks(published)[1])
        preference, text_writer = row["preference"], writer
    else:
        state = PreferenceState(blocks[:num_current])
        preference = record.preference or state.checkpoint
        text_writer = record.text_writer if record.preference else writer
    num_unseen = len(item_ids) - len(state.history)
    if (
        not record.has_texts_of_others(writer)
        and record.writer
        and (
            record.version - record.preference_version <= num_unseen
            or count_current_blocks(record.state.blocks, item_ids) > num_current
        )
    ):
        return None
    covered = record.version - num_unseen
    return UpdatedPreference(record, state, preference, covered, writer, text_writer)
