"""Each user's progress through the blocks: what must be written, and what is written already.

Histories are cut here (`core.splits`). Texts that an earlier run wrote from the same items are
reused, so that more users or new interactions cost only the blocks that change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import HistoryTooShort
from services.core.prompts import HistoryItem
from services.core.recurrence import DIRECT_HISTORY_SIZE, count_equal_leading, split_blocks
from services.core.splits import Cut, cut_history, training_popularity


@dataclass(slots=True)
class UserProgress:
    """One user on the way through the blocks; `texts[k]` is the preference after `blocks[k]`.

    `hit_limits[k]`: whether the token limit ended it; None if an older version wrote it.
    The first `num_full` blocks are full ones. The one after them is the tail, and its text the
    current preference; with `--direct` it is the only one and holds the whole history.
    """

    user_id: str
    item_ids: Sequence[str]
    blocks: Sequence[Sequence[str]]
    num_full: int
    digests: Sequence[str]
    texts: list[str] = field(default_factory=list)
    hit_limits: list[bool | None] = field(default_factory=list)
    refused: str = ""

    def copy(self) -> "UserProgress":
        """A copy whose texts can grow without changing this one."""
        return replace(self, texts=list(self.texts), hit_limits=list(self.hit_limits))

    def waits_for(self, wave: int) -> bool:
        """Whether this user's next text belongs to the wave."""
        return len(self.texts) == wave < len(self.blocks) and not self.refused


def history_items(items: Artifact, summaries: Artifact) -> dict[str, HistoryItem]:
    """The item texts of preference prompts, by item id."""
    summary_rows = summaries.read(["item_id", "summary"]).to_pydict()
    summary_of = dict(zip(summary_rows["item_id"], summary_rows["summary"], strict=True))
    item_rows = items.read(["item_id", "title"]).to_pydict()
    return {
        item_id: HistoryItem(title, summary_of.get(item_id, ""))
        for item_id, title in zip(item_rows["item_id"], item_rows["title"], strict=True)
    }


def read_progress(
    interactions: Artifact,
    texts: Mapping[str, HistoryItem],
    *,
    cut: Cut,
    direct: bool,
    num_users: int | None,
) -> tuple[list[UserProgress], list[QuarantinedRow]]:
    """The users (the first `num_users`) in order, and those whose history is too short."""
    popularity = _training_popularity(interactions) if cut == "popular" else None
    rows = (
        row for table in interactions.shards(["user_id", "item_ids"]) for row in table.to_pylist()
    )
    users: list[UserProgress] = []
    too_short: list[QuarantinedRow] = []
    for row in islice(rows, num_users):
        try:
            history = cut_history(row["item_ids"], cut, popularity)
        except HistoryTooShort as error:
            too_short.append(QuarantinedRow(row["user_id"], str(error)))
            continue
        users.append(_progress(row["user_id"], history, texts, direct=direct))
    return users, too_short


def _training_popularity(interactions: Artifact) -> Mapping[str, int]:
    """How many training users took each item: of all users, however many get a preference."""
    columns = interactions.read(["user_id", "item_ids"]).to_pydict()
    return training_popularity(dict(zip(columns["user_id"], columns["item_ids"], strict=True)))


def take_over(artifact: Artifact, recipe: Recipe, users: Sequence[UserProgress]) -> None:
    """Give users the texts that the same prompt and model wrote earlier from the same items."""
    if not artifact.exists():
        return
    earlier = artifact.manifest()
    definition = {**recipe.definition, "num_users": earlier.definition.get("num_users")}
    if (earlier.definition, earlier.model) != (definition, recipe.model):
        return
    rows = {row["user_id"]: row for table in artifact.shards() for row in table.to_pylist()}
    for user in users:
        row = rows.get(user.user_id)
        if row is None:
            continue
        written = list(row["block_preferences"])
        if len(row["block_digests"]) > len(written):
            written.append(row["preference"])
        num_same = count_equal_leading(row["block_digests"], user.digests)
        user.texts += written[:num_same]
        user.hit_limits += (row.get("hit_limits") or [None] * len(written))[:num_same]


def _progress(
    user_id: str, history: Sequence[str], texts: Mapping[str, HistoryItem], *, direct: bool
) -> UserProgress:
    full, tail = ([], history[-DIRECT_HISTORY_SIZE:]) if direct else split_blocks(history)
    blocks = [*full, tail] if tail else full
    digests = []
    digest = hashlib.sha256()
    for block in blocks:  # each digest covers the texts of its own and all earlier blocks
        for item_id in block:
            item = texts[item_id]
            digest.update(f"{item.title}\x00{item.summary}\x01".encode())
        digests.append(digest.hexdigest()[:16])
    return UserProgress(user_id, history, blocks, len(full), digests)
