"""Step 1, `msr prepare-catalogue`: makes the artifacts `items` and `interactions` of a data set.

    msr prepare-catalogue --microlens FOLDER --data data
    msr prepare-catalogue --amazon FOLDER --category Video_Games --data data
    msr prepare-catalogue --catalogue FOLDER --data data

It decides, in this order: which item rows are used (the first of each id, with a title); which
interactions (with a usable item, the first of each user and item); the k-core; the numbering (users
in order of first appearance, items as in their table); each history's order (time, then event id).

A row that cannot be used is quarantined with its name and reason, and the step continues. An item
whose cover cannot be used stays and is described from its title, so that no history loses it; the
cover is quarantined, and `retry_quarantined` tries it again. A killed run resumes: it keeps
finished shards and downloads.

An item's `image` is what the model sees, its `cover` what people are shown. Items of versions that
kept no `cover` stay finished; shards of theirs that were not finished are made again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from services.batch.covers import COVER_ROW, Cover, CoverLoader
from services.batch.filtering import Selection, select
from services.batch.readers.source import Source, SourceItem, digest_source
from services.core.artifacts import Artifact, ArtifactWriter, QuarantinedRow, Recipe
from services.core.errors import InputError
from services.core.fingerprint import fingerprint
from services.core.images import DEFAULT_IMAGE_SIZE, ImageForm
from services.core.prompt_phrases import MAX_TITLE_CHARS
from services.core.records import item_version
from services.fetch.cache import DownloadCache
from services.fetch.rules import FetchRules

STEP = "prepare-catalogue"
RULES = 1  # raise it when this step's decisions change, so that artifacts are made again
ITEMS_PER_SHARD = 1_000
USERS_PER_SHARD = 10_000

COVER = "cover"
ITEMS_SCHEMA = pa.schema(
    [
        ("item_index", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("image", pa.binary()),
        ("version", pa.string()),
        (COVER, pa.binary()),
    ]
)
INTERACTIONS_SCHEMA = pa.schema(
    [
        ("user_index", pa.int32()),
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("timestamps_ms", pa.list_(pa.int64())),
    ]
)

# What an estimate rests on: a `large` cover of Amazon, 8 requests in flight to one host, and one
# core decoding and encoding a cover of 500 pixels.
TYPICAL_DOWNLOAD_BYTES = 50_000
DOWNLOADS_PER_SECOND = 20
PREPARED_PER_SECOND = 200
PREPARED_BYTES_PER_PIXEL = 0.5
SHOWN_BYTES = 35_000  # of the cover for people

# The digest of covers that a retry recovered, in the definition of items. It changes the
# fingerprint with the bytes; a rerun with the same arguments still finds the artifact finished.
RECOVERED = "recovered_covers"


def run(
    source: Source,
    *,
    data: str,
    image_size: int = DEFAULT_IMAGE_SIZE,
    form: ImageForm | None = None,
    min_user_interactions: int | None = None,
    min_item_interactions: int | None = None,
    num_users: int | None = None,
    retry_quarantined: bool = False,
    allowed_hosts: Sequence[str] = (),
    allow_private: bool = False,
    items_per_shard: int = ITEMS_PER_SHARD,
) -> dict[str, int]:
    """Make or complete the artifacts and return their counts (see `count`).

    Covers are prepared in `form`; by default in squares of `image_size`. The thresholds of the
    k-core default to the source's own; 0 or 1 turns one off, and 0 for items keeps items without
    interactions. `num_users` keeps the first N users after the k-core and their items: a sample.
    Covers are downloaded from `allowed_hosts` and from the source's own hosts;
    `allow_private` is explained in `fetch/rules.py`.

    Raises InputError for impossible arguments, MalformedFile, EmptyDataset or FolderNotWritable;
    earlier artifacts stay.
    """
    form = form or ImageForm(image_size)
    if form.size < 1 or items_per_shard < 1 or (num_users is not None and num_users < 1):
        raise InputError("image_size, items_per_shard and num_users must be at least 1; raise them")
    if min_user_interactions is None:
        min_user_interactions = source.min_user_interactions
    if min_item_interactions is None:
        min_item_interactions = source.min_item_interactions
    read = partial(
        select,
        source,
        min_user=min_user_interactions,
        min_item=min_item_interactions,
        num_users=num_users,
    )
    rules = FetchRules((*source.image_hosts, *allowed_hosts), allow_private=allow_private)
    digests = digest_source(source)
    definition = {
        "rules": RULES,
        "source": source.name,
        "min_user_interactions": min_user_interactions,
        "min_item_interactions": min_item_interactions,
        "num_users": num_users,
        "max_title_chars": MAX_TITLE_CHARS,
    }
    # Rankers that weigh old interactions less must know what the times mean.
    history_recipe = Recipe(STEP, {**definition, "times": source.times}, inputs=digests)
    item_recipe = Recipe(
        STEP,
        definition
        | form.to_definition()
        | {
            "items_per_shard": items_per_shard,
            "allowed_hosts": sorted(rules.allowed_hosts),
        },
        inputs=digests,
    )
    histories, items = Artifact(data, "interactions"), Artifact(data, "items")

    finished = _is_finished(items, item_recipe) and _is_finished(histories, history_recipe)
    if finished and not (retry_quarantined and count(data)["quarantined_covers"]):
        return count(data)
    covers = CoverLoader(data=data, form=form, rules=rules, refetch_broken=retry_quarantined)
    if finished:
        asyncio.run(_retry_covers(items, read().items, covers))
        return count(data)

    # Opened before the tables are read, so that a folder that cannot be written fails at once.
    history_writer, item_writer = histories.write(history_recipe), items.write(item_recipe)
    selection = read()
    num_history_shards = _write_histories(history_writer, selection)
    num_item_shards = asyncio.run(_write_items(item_writer, selection, covers, items_per_shard))
    # Published together at the end, so that the two disagree only for a moment.
    history_writer.finish(
        num_history_shards,
        {
            "users": len(selection.histories.user_ids),
            "interactions": len(selection.histories.items),
            "repeats": selection.num_repeats,
        },
    )
    _finish_items(item_writer, num_item_shards, selection.items, selection.num_titles_cut)
    return count(data)


def estimate(
    source: Source,
    *,
    data: str,
    image_size: int = DEFAULT_IMAGE_SIZE,
    form: ImageForm | None = None,
    min_user_interactions: int | None = None,
    min_item_interactions: int | None = None,
    num_users: int | None = None,
) -> dict[str, int]:
    """What `run` with these arguments would make and cost; writes and downloads nothing.

    It reads and filters the tables to find the covers that are needed. Returns users, items,
    interactions, quarantined (rows of the tables), covers, downloads (covers not kept from before),
    download_bytes, artifact_bytes (of the images) and estimated_seconds; the last three use the
    typical figures above.
    """
    selection = select(
        source, min_user=min_user_interactions, min_item=min_item_interactions, num_users=num_users
    )
    kept = DownloadCache(data)
    urls = [item.cover_url for item in selection.items if item.cover_url is not None]
    num_downloads = sum(1 for url in urls if url not in kept)
    num_covers = sum(1 for item in selection.items if _has_cover(item))
    pixels = (form or ImageForm(image_size)).mean_pixels
    cover_bytes = pixels * PREPARED_BYTES_PER_PIXEL + SHOWN_BYTES
    seconds = num_downloads / DOWNLOADS_PER_SECOND + num_covers / PREPARED_PER_SECOND
    return {
        "users": len(selection.histories.user_ids),
        "items": len(selection.items),
        "interactions": len(selection.histories.items),
        "quarantined": len(selection.item_faults) + len(selection.interaction_faults),
        "covers": num_covers,
        "downloads": num_downloads,
        "download_bytes": num_downloads * TYPICAL_DOWNLOAD_BYTES,
        "artifact_bytes": round(num_covers * cover_bytes),
        "estimated_seconds": round(seconds),
    }


def count(data: str) -> dict[str, int]:
    """Counts of the finished artifacts: users, items, interactions, items_with_image; quarantined
    in all, and of these quarantined_items, _covers and _interactions; titles_cut (to the length
    that a prompt allows); repeats (of a user and item, left out).
    """
    items = Artifact(data, "items").manifest()
    interactions = Artifact(data, "interactions").manifest()
    return {
        **interactions.counts,
        **items.counts,
        "quarantined_interactions": interactions.num_quarantined,
        "quarantined": items.num_quarantined + interactions.num_quarantined,
    }


# --- interactions --------------------------------------------------------------------------------


def _write_histories(writer: ArtifactWriter, selection: Selection) -> int:
    """Write the missing shards; the number of all shards."""
    histories = selection.histories
    item_ids = pa.array([item.item_id for item in selection.items], pa.string())
    starts = range(0, len(histories.user_ids), USERS_PER_SHARD)
    for shard, start in enumerate(starts):
        if writer.has_shard(shard):
            continue
        offsets = histories.offsets[start : start + USERS_PER_SHARD + 1]
        rows = slice(offsets[0], offsets[-1])
        lengths = pa.array(offsets - offsets[0], pa.int32())
        user_ids = histories.user_ids[start : start + USERS_PER_SHARD]
        table = pa.table(
            [
                pa.array(np.arange(start, start + len(user_ids)), pa.int32()),
                pa.array(user_ids, pa.string()),
                pa.ListArray.from_arrays(lengths, item_ids.take(pa.array(histories.items[rows]))),
                pa.ListArray.from_arrays(lengths, pa.array(histories.timestamps_ms[rows])),
            ],
            schema=INTERACTIONS_SCHEMA,
        )
        writer.write_shard(shard, table, selection.interaction_faults if shard == 0 else ())
    return len(starts)


# --- items ---------------------------------------------------------------------------------------


async def _write_items(
    writer: ArtifactWriter, selection: Selection, covers: CoverLoader, items_per_shard: int
) -> int:
    """Write the missing shards; the number of all shards."""
    starts = range(0, len(selection.items), items_per_shard)
    progress = tqdm(total=len(selection.items), desc="prepare items", unit=" items", disable=None)
    async with aclosing(covers):
        for shard, start in enumerate(starts):
            items = selection.items[start : start + items_per_shard]
            if writer.has_shard(shard, with_column=COVER):
                progress.update(len(items))
                continue
            loaded = await covers.load_all(items, on_done=progress.update)
            faults = list(selection.item_faults) if shard == 0 else []
            faults += [
                QuarantinedRow(COVER_ROW + item.item_id, cover.fault)
                for item, cover in zip(items, loaded, strict=True)
                if cover.fault
            ]
            writer.write_shard(shard, _item_table(start, items, loaded), faults)
    progress.close()
    return len(starts)


async def _retry_covers(
    artifact: Artifact, items: Sequence[SourceItem], covers: CoverLoader
) -> None:
    """Try the quarantined covers of the finished artifact again; remake it with those that work."""
    manifest = artifact.manifest()
    recipe = Recipe(manifest.step, manifest.definition, manifest.model, manifest.inputs)
    old = artifact.write(recipe)
    by_row = {COVER_ROW + item.item_id: item for item in items}
    faults = [old.read_quarantine(shard) for shard in range(manifest.num_shards)]
    async with aclosing(covers):
        recovered: dict[str, str] = {}
        tried = [by_row[fault.row] for shard in faults for fault in shard if fault.row in by_row]
        progress = tqdm(total=len(tried), desc="retry covers", unit=" covers", disable=None)
        for start in range(0, len(tried), ITEMS_PER_SHARD):  # images are dropped and made again
            batch = tried[start : start + ITEMS_PER_SHARD]  # below, so that memory stays bounded
            loaded = await covers.load_all(batch, on_done=progress.update)
            recovered |= {
                COVER_ROW + item.item_id: item_version(item.title, cover.image)
                for item, cover in zip(batch, loaded, strict=True)
                if cover.image is not None
            }
        progress.close()
        if not recovered:
            return
        digest = fingerprint({"before": recipe.definition.get(RECOVERED, ""), "covers": recovered})
        new = artifact.write(replace(recipe, definition={**recipe.definition, RECOVERED: digest}))
        for shard in range(manifest.num_shards):
            if new.has_shard(shard, with_column=COVER):
                continue
            table = _with_cover_column(old.read_shard(shard))
            again = [by_row[fault.row] for fault in faults[shard] if fault.row in recovered]
            if again:
                table = _with_covers(table, again, await covers.load_all(again))
            left = [fault for fault in faults[shard] if fault.row not in recovered]
            new.write_shard(shard, table, left)
    _finish_items(new, manifest.num_shards, items, manifest.counts["titles_cut"])


def _finish_items(
    writer: ArtifactWriter, num_shards: int, items: Sequence[SourceItem], num_titles_cut: int
) -> None:
    rows = [fault.row for shard in range(num_shards) for fault in writer.read_quarantine(shard)]
    num_cover_faults = sum(1 for row in rows if row.startswith(COVER_ROW))
    writer.finish(
        num_shards,
        {
            "items": len(items),
            "items_with_image": sum(map(_has_cover, items)) - num_cover_faults,
            "titles_cut": num_titles_cut,
            "quarantined_items": len(rows) - num_cover_faults,
            "quarantined_covers": num_cover_faults,
        },
    )


def _item_table(start: int, items: Sequence[SourceItem], covers: Sequence[Cover]) -> pa.Table:
    rows = [
        {
            "item_index": index,
            "item_id": item.item_id,
            "title": item.title,
            "image": cover.image,
            "version": item_version(item.title, cover.image),
            COVER: cover.shown,
        }
        for index, (item, cover) in enumerate(zip(items, covers, strict=True), start)
    ]
    return pa.Table.from_pylist(rows, ITEMS_SCHEMA)


def _with_covers(table: pa.Table, items: Sequence[SourceItem], covers: Sequence[Cover]) -> pa.Table:
    """The shard with the recovered images of these items."""
    columns: Mapping[str, list[Any]] = table.to_pydict()
    position = {item_id: k for k, item_id in enumerate(columns["item_id"])}
    for item, cover in zip(items, covers, strict=True):
        if cover.image is None:
            raise InputError(
                f"the cover of item {item.item_id!r} could be used and now cannot ({cover.fault}); "
                "run with --retry-quarantined once more"
            )
        columns["image"][position[item.item_id]] = cover.image
        columns[COVER][position[item.item_id]] = cover.shown
        columns["version"][position[item.item_id]] = item_version(item.title, cover.image)
    return pa.table(columns, schema=ITEMS_SCHEMA)


def _with_cover_column(table: pa.Table) -> pa.Table:
    """The shard of a version that kept no covers for people: none of its items has one."""
    if COVER in table.column_names:
        return table
    return table.append_column(COVER, pa.nulls(len(table), pa.binary()))


def _has_cover(item: SourceItem) -> bool:
    return item.cover_file is not None or item.cover_url is not None


def _is_finished(artifact: Artifact, recipe: Recipe) -> bool:
    """Whether the artifact has this recipe, with or without covers recovered since."""
    if not artifact.exists():
        return False
    manifest = artifact.manifest()
    definition = {key: value for key, value in manifest.definition.items() if key != RECOVERED}
    return definition == recipe.definition and manifest.inputs == recipe.inputs
