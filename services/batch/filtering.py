"""Which items and interactions of a data set are kept, and in which order.

Of an item id the first row counts, if it has a title. Interactions count if their item does, and of
each user and item the first. Then comes the iterated k-core. Items keep the order of their table,
users that of their first interaction in the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.batch.readers.interactions import (
    Codes,
    Histories,
    InteractionColumns,
    Mask,
    build_histories,
    checked_id,
    first_occurrences,
    k_core,
)
from services.batch.readers.source import Faults, Source, SourceItem
from services.core.artifacts import QuarantinedRow
from services.core.errors import EmptyDataset, RowRefused
from services.core.prompt_phrases import MAX_TITLE_CHARS
from services.core.sanitize_text import clean_text


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept: items with clean titles, in order, and histories of indices into `items`."""

    items: list[SourceItem]
    histories: Histories
    item_faults: Faults
    interaction_faults: Faults
    num_titles_cut: int
    num_repeats: int


def select(
    source: Source,
    *,
    min_user: int | None = None,
    min_item: int | None = None,
    num_users: int | None = None,
) -> Selection:
    """Read a source and filter it; thresholds that are None are the source's own.

    `min_item` 0 keeps items without interactions too. `num_users` keeps the first N users and
    their items. Raises MalformedFile, or EmptyDataset if nothing is left.
    """
    min_user = source.min_user_interactions if min_user is None else min_user
    min_item = source.min_item_interactions if min_item is None else min_item
    interaction_faults: Faults = []
    columns = source.interactions(interaction_faults)
    users, items, times = columns.users, columns.items, columns.timestamps_ms
    is_first = first_occurrences(users, items, times)

    # This core contains the final one, so items outside it are not kept in memory.
    in_core = k_core(users[is_first], items[is_first], min_user=min_user, min_item=min_item)
    wanted = None if min_item == 0 else set(np.unique(items[is_first][in_core]).tolist())
    item_faults: Faults = []
    usable, kept_items, num_titles_cut = _read_items(source, columns, wanted, item_faults)

    is_known = usable[items]
    rows = np.flatnonzero(is_first & is_known)
    rows = rows[k_core(users[rows], items[rows], min_user=min_user, min_item=min_item)]
    if num_users is not None and len(rows):
        chosen = np.unique(users[rows])[:num_users]
        rows = rows[np.isin(users[rows], chosen)]
    if not len(rows):
        raise EmptyDataset(
            _nothing_left(source, columns, is_known, min_user, min_item, interaction_faults)
        )
    interaction_faults += _unknown_items(source, columns, np.flatnonzero(~is_known))

    histories = build_histories(columns, users[rows], items[rows], times[rows])
    if wanted is not None or num_users is not None:
        taken = set(np.unique(items[rows]).tolist())
        kept_items = {code: item for code, item in kept_items.items() if code in taken}
    index_of = np.full(len(columns.item_ids), -1, dtype=np.int64)
    index_of[list(kept_items)] = np.arange(len(kept_items))
    return Selection(
        items=list(kept_items.values()),
        histories=replace(histories, items=index_of[histories.items]),
        item_faults=item_faults,
        interaction_faults=interaction_faults,
        num_titles_cut=num_titles_cut,
        num_repeats=int(len(is_first) - is_first.sum()),
    )


def _read_items(
    source: Source, columns: InteractionColumns, wanted: set[int] | None, faults: Faults
) -> tuple[Mask, dict[int, SourceItem], int]:
    """Which item codes are usable; the items to keep, by code in table order; how many titles were
    cut. `wanted` are the codes to keep; None keeps all items, also those without interactions.
    """
    usable = bytearray(len(columns.item_ids))
    kept: dict[int, SourceItem] = {}
    num_titles_cut = 0
    for item in source.items(faults):
        code = columns.item_code(item.item_id)
        if code is None and wanted is not None:
            continue
        try:
            clean = _clean(item, is_used=code is not None and bool(usable[code]))
        except RowRefused as fault:
            faults.append(QuarantinedRow(item.row, str(fault)))
            continue
        if code is None:
            code = columns.add_item(item.item_id)
            usable.append(0)
        usable[code] = 1
        if wanted is None or code in wanted:
            kept[code] = clean
            num_titles_cut += len(item.title) > MAX_TITLE_CHARS and _is_cut(item.title)
    return np.frombuffer(usable, dtype=np.bool_), kept, num_titles_cut


def _clean(item: SourceItem, *, is_used: bool) -> SourceItem:
    """The item with a clean title; RowRefused if its row cannot be used."""
    checked_id(item.item_id, "item")
    if is_used:
        raise RowRefused(f"item {item.item_id!r} has an earlier row, which is used; delete one")
    title = clean_text(item.title, MAX_TITLE_CHARS)
    if not title:
        raise RowRefused(f"item {item.item_id!r} has no title in words; give it one")
    return replace(item, title=title)


def _is_cut(title: str) -> bool:
    """Whether cleaning a title to a prompt's length loses words, not only spaces and markup."""
    return len(clean_text(title, 2 * MAX_TITLE_CHARS)) > MAX_TITLE_CHARS


def _unknown_items(source: Source, columns: InteractionColumns, rows: Codes) -> Faults:
    table = source.items_table.name
    ids, items, lines = columns.item_ids, columns.items, columns.lines
    return [
        QuarantinedRow(
            f"{columns.file}:{lines[row]}",
            f"item {ids[items[row]]!r} has no usable row in {table}; add it there, or see in the "
            "quarantine of the items why its row was refused",
        )
        for row in rows
    ]


def _nothing_left(
    source: Source,
    columns: InteractionColumns,
    is_known: Mask,
    min_user: int,
    min_item: int,
    faults: Sequence[QuarantinedRow],
) -> str:
    num_unknown = int(len(is_known) - is_known.sum())
    first_fault = f" (the first: {faults[0].row}: {faults[0].reason})" if faults else ""
    return (
        f"no interaction of {columns.file} is left: {len(faults)} rows could not be read"
        f"{first_fault}, {num_unknown} of the other {len(columns)} name items without a usable row "
        f"in {source.items_table.name}, and the rest has no users with {min_user} interactions on "
        f"items with {min_item}; correct the files, or lower --min-user-interactions and "
        "--min-item-interactions"
    )
