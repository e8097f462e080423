"""Step 3, `msr build-preferences`: a written preference for every user, block after block.

Reads `items`, `interactions` and `summaries`; writes `preferences`: for each user the items folded,
the preference after each full block, and the current one. Block k of all users is one wave through
the engine, so that the engine always has many prompts to batch; a wave is kept shard by shard, and
a killed run goes on behind the last whole shard.

Which part of a history a preference has seen is the cut, and the manifest records it:
    --cut last   all but the target item: for training and evaluation (`preferences`)
    --cut none   everything: for serving (`preferences-whole`)
    --direct     one prompt over the latest interactions instead of the recurrence, for comparison
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
from tqdm import tqdm

from services.core.artifacts import Artifact, ArtifactWriter, QuarantinedRow, Recipe
from services.core.errors import EmptyDataset, EngineRefused, HistoryTooShort
from services.core.prompts import (
    PREFERENCE_FINGERPRINT,
    PREFERENCE_LIMITS,
    HistoryItem,
    preference_messages,
)
from services.core.recurrence import BLOCK_SIZE, DIRECT_HISTORY_SIZE, split_blocks
from services.core.splits import Cut, cut_history
from services.engines.contract import Engine

SHARD_SIZE = 256
SHARDS_IN_FLIGHT = 2
PROBE_SIZE = 16

WAVE_SCHEMA = pa.schema([("user_id", pa.string()), ("preference", pa.string())])
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("block_preferences", pa.list_(pa.string())),
        ("block_digests", pa.list_(pa.string())),
        ("preference", pa.string()),
    ]
)


@dataclass(slots=True)
class _UserFold:
    """One user on the way through the waves; `texts[k]` is the preference after `blocks[k]`.

    The first `num_full` blocks are full ones. The one after them is the tail, and its text the
    current preference; with `--direct` it is the only one and holds the whole history.
    """

    user_id: str
    item_ids: Sequence[str]
    blocks: Sequence[Sequence[str]]
    num_full: int
    digests: Sequence[str]
    texts: list[str] = field(default_factory=list)
    refused: str = ""

    def waits_for(self, wave: int) -> bool:
        return len(self.texts) == wave < len(self.blocks) and not self.refused


@dataclass(frozen=True, slots=True)
class _Plan:
    """What this run starts from."""

    writer: ArtifactWriter
    waves: ArtifactWriter
    users: Sequence[_UserFold]
    too_short: Sequence[QuarantinedRow]
    shard_size: int
    texts: Mapping[str, HistoryItem] = field(repr=False)

    @property
    def shards(self) -> list[Sequence[_UserFold]]:
        starts = range(0, len(self.users), self.shard_size)
        return [self.users[start : start + self.shard_size] for start in starts]

    @property
    def num_waves(self) -> int:
        return max((len(user.blocks) for user in self.users), default=0)


def artifact_name(cut: Cut, *, direct: bool) -> str:
    """Where each variant lies, so that none overwrites another."""
    if direct:
        return "preferences-direct"
    return "preferences" if cut == "last" else "preferences-whole"


async def run(
    data: str,
    engine: Engine,
    *,
    cut: Cut = "last",
    direct: bool = False,
    num_users: int | None = None,
    retry_quarantined: bool = False,
    shard_size: int = SHARD_SIZE,
) -> dict[str, int]:
    """Write the preference of every user (of the first `num_users`); counts of users and blocks.

    Raises ArtifactMissing if an earlier step has not run, EmptyDataset if no user has a history.
    """
    plan = _plan(data, engine, cut, direct, num_users, shard_size)
    if plan.writer.finished and not retry_quarantined:
        plan.waves.discard()
        return dict(plan.writer.artifact.manifest().counts)
    with tqdm(
        total=sum(len(user.blocks) for user in plan.users), desc="build-preferences", unit="block"
    ) as progress:
        progress.update(sum(len(user.texts) for user in plan.users))
        for wave in range(plan.num_waves):
            progress.set_postfix_str(f"wave {wave + 1}/{plan.num_waves}")
            await _run_wave(plan, engine, wave, progress, retry=retry_quarantined)
    return _publish(plan)


async def estimate(
    data: str,
    engine: Engine,
    *,
    cut: Cut = "last",
    direct: bool = False,
    num_users: int | None = None,
) -> dict[str, float]:
    """What a run would cost: prompts left, tokens at most, seconds by timing a few prompts."""
    plan = _plan(data, engine, cut, direct, num_users, SHARD_SIZE)
    prompts = sum(len(user.blocks) - len(user.texts) for user in plan.users)
    probed = [user for user in plan.users if user.waits_for(len(user.texts))][:PROBE_SIZE]
    started = time.perf_counter()
    await asyncio.gather(*(_write(plan, engine, user, len(user.texts)) for user in probed))
    seconds = time.perf_counter() - started
    return {
        "prompts": prompts,
        "max_new_tokens": prompts * PREFERENCE_LIMITS.max_new_tokens,
        "estimated_seconds": round(seconds * prompts / max(1, len(probed)), 1),
    }


# --- what there is to do -------------------------------------------------------------------------


def _plan(
    data: str, engine: Engine, cut: Cut, direct: bool, num_users: int | None, shard_size: int
) -> _Plan:
    items, interactions, summaries = (
        Artifact(data, name) for name in ("items", "interactions", "summaries")
    )
    recipe = Recipe(
        step="build-preferences",
        definition={
            "prompt": PREFERENCE_FINGERPRINT,
            "block_size": BLOCK_SIZE,
            "variant": "direct" if direct else "recurrent",
            "cut": cut,
            "num_users": num_users,
            "shard_size": shard_size,
        },
        model=engine.identity.model,
        inputs={a.name: a.manifest().fingerprint for a in (items, interactions, summaries)},
    )
    name = artifact_name(cut, direct=direct)
    artifact = Artifact(data, name)
    texts = _history_items(items, summaries)
    users, too_short = _histories(interactions, texts, cut, direct, num_users)
    if not users:
        raise EmptyDataset(
            f"no user of {interactions.location} has a history to write a preference from; "
            "prepare a catalogue with more interactions"
        )
    _reuse(artifact, recipe, users)
    waves = Artifact(data, f"{name}-waves").write(recipe)
    return _Plan(artifact.write(recipe), waves, users, too_short, shard_size, texts)


def _history_items(items: Artifact, summaries: Artifact) -> dict[str, HistoryItem]:
    summary_rows = summaries.read(["item_id", "summary"]).to_pydict()
    summary_of = dict(zip(summary_rows["item_id"], summary_rows["summary"], strict=True))
    item_rows = items.read(["item_id", "title"]).to_pydict()
    return {
        item_id: HistoryItem(title, summary_of.get(item_id, ""))
        for item_id, title in zip(item_rows["item_id"], item_rows["title"], strict=True)
    }


def _histories(
    interactions: Artifact,
    texts: Mapping[str, HistoryItem],
    cut: Cut,
    direct: bool,
    num_users: int | None,
) -> tuple[list[_UserFold], list[QuarantinedRow]]:
    rows = (
        row for table in interactions.shards(["user_id", "item_ids"]) for row in table.to_pylist()
    )
    users: list[_UserFold] = []
    too_short: list[QuarantinedRow] = []
    for row in islice(rows, num_users):
        try:
            history = cut_history(row["item_ids"], cut)
        except HistoryTooShort as error:
            too_short.append(QuarantinedRow(row["user_id"], str(error)))
            continue
        users.append(_user_fold(row["user_id"], history, texts, direct=direct))
    return users, too_short


def _user_fold(
    user_id: str, history: Sequence[str], texts: Mapping[str, HistoryItem], *, direct: bool
) -> _UserFold:
    full, tail = ([], history[-DIRECT_HISTORY_SIZE:]) if direct else split_blocks(history)
    blocks = [*full, tail] if tail else full
    digests = []
    digest = hashlib.sha256()
    for block in blocks:  # each digest covers the texts of its own and all earlier blocks
        for item_id in block:
            item = texts[item_id]
            digest.update(f"{item.title}\x00{item.summary}\x01".encode())
        digests.append(digest.hexdigest()[:16])
    return _UserFold(user_id, history, blocks, len(full), digests)


def _reuse(artifact: Artifact, recipe: Recipe, users: Sequence[_UserFold]) -> None:
    """Take over the texts that the same prompt and model wrote from the same items before."""
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
        for text, before, now in zip(written, row["block_digests"], user.digests, strict=False):
            if before != now:
                break
            user.texts.append(text)


# --- the waves -----------------------------------------------------------------------------------


async def _run_wave(
    plan: _Plan, engine: Engine, wave: int, progress: "tqdm[None]", *, retry: bool
) -> None:
    slots = asyncio.Semaphore(SHARDS_IN_FLIGHT)

    async def shard_job(shard: int, users: Sequence[_UserFold]) -> None:
        async with slots:
            waiting = [user for user in users if user.waits_for(wave)]
            await _run_wave_shard(plan, engine, wave, shard, waiting, retry=retry)
            progress.update(len(waiting))

    async with asyncio.TaskGroup() as jobs:
        for shard, users in enumerate(plan.shards):
            jobs.create_task(shard_job(shard, users))


async def _run_wave_shard(
    plan: _Plan,
    engine: Engine,
    wave: int,
    shard: int,
    waiting: Sequence[_UserFold],
    *,
    retry: bool,
) -> None:
    """Write, or read where an earlier run wrote them, the wave's texts of one shard of users."""
    if not waiting:
        return
    wave_shard = wave * len(plan.shards) + shard
    known: dict[str, str] = {}
    refused: dict[str, str] = {}
    if plan.waves.has_shard(wave_shard):
        rows = plan.waves.read_shard(wave_shard).to_pydict()
        known = dict(zip(rows["user_id"], rows["preference"], strict=True))
        if not retry:
            refused = {row.row: row.reason for row in plan.waves.read_quarantine(wave_shard)}
    missing = [user for user in waiting if user.user_id not in known | refused]
    for user, text in zip(
        missing,
        await asyncio.gather(*(_write(plan, engine, user, wave) for user in missing)),
        strict=True,
    ):
        if isinstance(text, EngineRefused):
            refused[user.user_id] = str(text)
        else:
            known[user.user_id] = text
    if missing:
        table = pa.table(
            {"user_id": list(known), "preference": list(known.values())}, schema=WAVE_SCHEMA
        )
        plan.waves.write_shard(wave_shard, table, [QuarantinedRow(*row) for row in refused.items()])
    for user in waiting:
        if user.user_id in known:
            user.texts.append(known[user.user_id])
        else:
            user.refused = refused[user.user_id]


async def _write(plan: _Plan, engine: Engine, user: _UserFold, wave: int) -> str | EngineRefused:
    """The preference after one more block, or why there is none."""
    previous = user.texts[wave - 1] if wave else ""
    block = [plan.texts[item_id] for item_id in user.blocks[wave]]
    try:
        text = await engine.generate(preference_messages(previous, block), PREFERENCE_LIMITS)
    except EngineRefused as error:
        return error
    return text or EngineRefused(
        f"the model wrote an empty preference after block {wave}; run with --retry-quarantined"
    )


# --- the artifact --------------------------------------------------------------------------------


def _publish(plan: _Plan) -> dict[str, int]:
    shards = plan.shards
    for shard, users in enumerate(shards):
        rows = []
        quarantined = list(plan.too_short) if shard == 0 else []
        for user in users:
            if user.refused:
                quarantined.append(QuarantinedRow(user.user_id, user.refused))
            else:
                rows.append(_row(user))
        plan.writer.write_shard(shard, pa.Table.from_pylist(rows, SCHEMA), quarantined)
    num_refused = sum(bool(user.refused) for user in plan.users)
    counts = {
        "users": len(plan.users) - num_refused,
        "blocks": sum(len(user.texts) for user in plan.users if not user.refused),
        "quarantined": num_refused + len(plan.too_short),
    }
    plan.writer.finish(len(shards), counts)
    plan.waves.discard()
    return counts


def _row(user: _UserFold) -> dict[str, object]:
    return {
        "user_id": user.user_id,
        "item_ids": list(user.item_ids),
        "block_preferences": user.texts[: user.num_full],
        "block_digests": list(user.digests),
        "preference": user.texts[-1],
    }
