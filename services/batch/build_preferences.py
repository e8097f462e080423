"""Step 3, `msr build-preferences`: writes every user's preference, block after block.

Reads `items`, `interactions` and `summaries`; writes `preferences`: for each user the items
covered, the preference after each full block, the current one, and whether the token limit ended
each of these texts (null if an older version wrote it). A shard of users goes through
the engine in waves: block k of all of them, then block k + 1. So the engine always has many prompts
to batch. Each wave is kept until its shard is written, and a killed run goes on behind the
last whole one.

Which part of a history a preference has seen is the cut, and the manifest records it:
    --cut last      all but the target item: for training and evaluation (`preferences`)
    --cut none      everything: for serving (`preferences-whole`)
    --cut popular   what came before the target of protocol `paper` (`preferences-popular`)
    --direct        one prompt over the latest interactions, no recurrence: for comparison
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from services.batch.text_report import reported, warned
from services.batch.user_progress import UserProgress, history_items, read_progress, take_over
from services.core.artifacts import (
    SAMPLING,
    SUMMARIES_BY,
    Artifact,
    ArtifactWriter,
    QuarantinedRow,
    Recipe,
    absolute_root,
)
from services.core.data_folder.steps import preferences_name
from services.core.data_folder.text_statistics import TextStatistics
from services.core.data_folder.text_writers import sampling_label
from services.core.errors import EmptyDataset, EngineRefused
from services.core.prompts import (
    PREFERENCE_FINGERPRINT,
    PREFERENCE_LIMITS,
    HistoryItem,
    Sampling,
    preference_limits,
    preference_messages,
)
from services.core.recurrence import BLOCK_SIZE
from services.core.splits import Cut
from services.engines.contract import Engine, hit_limit
from services.sharding.ray_workers import RayWorkers
from services.sharding.sharded_job import Advance
from services.sharding.sharded_step import PROBE_SIZE, ShardedStep, estimate_cost

SHARD_SIZE = 256

WAVE_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("preference", pa.string()), ("hit_limit", pa.bool_())]
)
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("block_preferences", pa.list_(pa.string())),
        ("block_digests", pa.list_(pa.string())),
        ("preference", pa.string()),
        ("hit_limits", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of a run; a Ray worker gets nothing else."""

    data: str
    model: str
    model_name: str
    cut: Cut
    direct: bool
    num_users: int | None
    shard_size: int = SHARD_SIZE
    retry: bool = False
    sampling: Sampling | None = None


@dataclass(frozen=True, slots=True)
class _Written:
    """A text of one wave; `hit_limit` is None if an older version wrote it."""

    text: str
    hit_limit: bool | None


@dataclass(frozen=True, kw_only=True)
class _Plan(ShardedStep[_Request]):
    """What a run starts from, and what it does to each shard of users."""

    waves: ArtifactWriter
    users: Sequence[UserProgress]
    too_short: Sequence[QuarantinedRow]
    texts: Mapping[str, HistoryItem] = field(repr=False)

    @classmethod
    def plan(cls, request: _Request) -> Self:
        """See `ShardedStep.plan`."""
        sampling = request.sampling
        items, interactions, summaries = (
            Artifact(request.data, name) for name in ("items", "interactions", "summaries")
        )
        summaries_by = summaries.manifest().model
        recipe = Recipe(
            step="build-preferences",
            definition={
                "prompt": PREFERENCE_FINGERPRINT,
                "block_size": BLOCK_SIZE,
                "variant": "direct" if request.direct else "recurrent",
                "cut": request.cut,
                "num_users": request.num_users,
                "shard_size": request.shard_size,
                **({SAMPLING: sampling_label(sampling)} if sampling is not None else {}),
                **({SUMMARIES_BY: summaries_by} if summaries_by not in ("", request.model) else {}),
            },
            model=request.model,
            inputs={a.name: a.manifest().fingerprint for a in (items, interactions, summaries)},
        )
        texts = history_items(items, summaries)
        users, too_short = read_progress(
            interactions,
            texts,
            cut=request.cut,
            direct=request.direct,
            num_users=request.num_users,
        )
        if not users:
            raise EmptyDataset(
                f"no user of {interactions.location} has a history to write a preference from; "
                "prepare a catalogue with more interactions"
            )
        name = preferences_name(request.cut, direct=request.direct)
        artifact = Artifact(request.data, name)
        take_over(artifact, recipe, users)
        waves = Artifact(request.data, f"{name}-waves").write(recipe)
        return cls(
            request=request,
            writer=artifact.write(recipe, model_name=request.model_name),
            num_rows=len(users),
            shard_size=request.shard_size,
            retry=request.retry,
            waves=waves,
            users=users,
            too_short=too_short,
            texts=texts,
        )

    def users_of(self, shard: int) -> Sequence[UserProgress]:
        return self.users[slice(*self.bounds(shard))]

    def num_units(self, shard: int) -> int:
        return sum(len(user.blocks) for user in self.users_of(shard))

    async def run_shard(self, engine: Engine, shard: int, advance: Advance) -> None:
        """Take a shard of users through their blocks, and write their preferences."""
        users = [user.copy() for user in self.users_of(shard)]
        advance(sum(len(user.texts) for user in users))
        for wave in range(max(len(user.blocks) for user in users)):
            if waiting := [user for user in users if user.waits_for(wave)]:
                await self._run_wave(engine, wave, shard, waiting, advance)
        rows = [_row(user) for user in users if not user.refused]
        quarantined = [QuarantinedRow(user.user_id, user.refused) for user in users if user.refused]
        if shard == 0:
            quarantined = [*self.too_short, *quarantined]
        self.writer.write_shard(shard, pa.Table.from_pylist(rows, SCHEMA), quarantined)

    async def _run_wave(
        self,
        engine: Engine,
        wave: int,
        shard: int,
        waiting: Sequence[UserProgress],
        advance: Advance,
    ) -> None:
        """Write the next texts of waiting users, or read those that an earlier run wrote."""
        number = wave * self.num_shards + shard
        known, refused = self._read_wave(number)
        missing = [user for user in waiting if user.user_id not in known | refused]
        advance(len(waiting) - len(missing))

        async def write(user: UserProgress) -> _Written | EngineRefused:
            text = await self.write_text(engine, user)
            advance(1)
            return text

        texts = await asyncio.gather(*(write(user) for user in missing))
        for user, text in zip(missing, texts, strict=True):
            if isinstance(text, EngineRefused):
                refused[user.user_id] = str(text)
            else:
                known[user.user_id] = text
        if missing:
            self._write_wave(number, known, refused)
        for user in waiting:
            if user.user_id in known:
                written = known[user.user_id]
                user.texts.append(written.text)
                user.hit_limits.append(written.hit_limit)
            else:
                user.refused = refused[user.user_id]

    def _read_wave(self, number: int) -> tuple[dict[str, _Written], dict[str, str]]:
        """Texts by user id, and reasons of refusal; with `retry` no reasons."""
        if not self.waves.has_shard(number):
            return {}, {}
        known = {
            row["user_id"]: _Written(row["preference"], row.get("hit_limit"))
            for row in self.waves.read_shard(number).to_pylist()
        }
        if self.request.retry:
            return known, {}
        return known, {row.row: row.reason for row in self.waves.read_quarantine(number)}

    def _write_wave(
        self, number: int, known: Mapping[str, _Written], refused: Mapping[str, str]
    ) -> None:
        columns = {
            "user_id": list(known),
            "preference": [written.text for written in known.values()],
            "hit_limit": [written.hit_limit for written in known.values()],
        }
        quarantined = [QuarantinedRow(user_id, reason) for user_id, reason in refused.items()]
        self.waves.write_shard(number, pa.table(columns, schema=WAVE_SCHEMA), quarantined)

    async def write_text(self, engine: Engine, user: UserProgress) -> _Written | EngineRefused:
        """The preference after one more block, or why there is none."""
        number = len(user.texts)
        previous = user.texts[-1] if user.texts else ""
        block = [self.texts[item_id] for item_id in user.blocks[number]]
        limits = preference_limits(
            self.request.sampling,
            user_id=user.user_id,
            previous=previous,
            item_ids=user.blocks[number],
        )
        try:
            text = await engine.generate(preference_messages(previous, block), limits)
        except EngineRefused as error:
            return error
        if not text:
            return EngineRefused(
                f"the model wrote an empty preference after block {number}; run with "
                "--retry-quarantined"
            )
        return _Written(str(text), hit_limit(text))


async def run(
    data: str,
    engine: Engine | RayWorkers,
    *,
    cut: Cut = "last",
    direct: bool = False,
    num_users: int | None = None,
    retry_quarantined: bool = False,
    shard_size: int = SHARD_SIZE,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """Write the preference of every user (of the first `num_users`); counts of users, blocks and
    quarantined, of prompts that this run shortened, and how much the `texts` vary.

    Raises ArtifactMissing if an earlier step has not run, EmptyDataset if no user has a history.
    """
    root, model = absolute_root(data), engine.identity
    request = _Request(
        root,
        model.model,
        model.name,
        cut,
        direct,
        num_users,
        shard_size,
        retry_quarantined,
        sampling,
    )
    plan = _Plan.plan(request)
    caveat = warned(data, engine.identity.card)
    if plan.writer.finished and not retry_quarantined:
        plan.waves.discard()
        counts = plan.writer.artifact.manifest().counts
        reports = reported(plan.writer.artifact.text_statistics())
        return {**counts, "shortened": 0, **reports, **caveat}
    num_shortened = await plan.run_left(engine, desc="build-preferences", unit="block")
    counts, texts = _finish(plan)
    return {**counts, "shortened": num_shortened, **reported(texts), **caveat}


async def estimate(
    data: str,
    engine: Engine,
    *,
    cut: Cut = "last",
    direct: bool = False,
    num_users: int | None = None,
    sampling: Sampling | None = None,
) -> dict[str, float]:
    """What a run would cost; see `estimate_cost`."""
    root, model = absolute_root(data), engine.identity
    request = _Request(root, model.model, model.name, cut, direct, num_users, sampling=sampling)
    plan = _Plan.plan(request)
    users = [user for shard in plan.left() for user in plan.users_of(shard)]
    prompts = sum(len(user.blocks) - len(user.texts) for user in users)
    probed = [user for user in users if user.waits_for(len(user.texts))][:PROBE_SIZE]
    probes = [plan.write_text(engine, user) for user in probed]
    return await estimate_cost(prompts, probes, max_new_tokens=PREFERENCE_LIMITS.max_new_tokens)


def _finish(plan: _Plan) -> tuple[dict[str, int], TextStatistics]:
    """Publish the shards; what is counted is what they hold, whichever run wrote them."""
    tables = [plan.writer.read_shard(k, ["block_digests"]) for k in range(plan.num_shards)]
    plan.require_success(sum(table.num_rows for table in tables))
    counts = {
        "users": sum(table.num_rows for table in tables),
        "blocks": sum(len(blocks) for table in tables for blocks in table[0].to_pylist()),
        "quarantined": sum(len(plan.writer.read_quarantine(k)) for k in range(plan.num_shards)),
    }
    # A history too short for its cut is quarantined too, but the model was not asked about it.
    texts = plan.writer.count_texts(
        plan.num_shards, num_empty=counts["quarantined"] - len(plan.too_short)
    )
    plan.writer.finish(plan.num_shards, counts, texts)
    plan.waves.discard()
    return counts, texts


def _row(user: UserProgress) -> dict[str, object]:
    return {
        "user_id": user.user_id,
        "item_ids": list(user.item_ids),
        "block_preferences": user.texts[: user.num_full],
        "block_digests": list(user.digests),
        "preference": user.texts[-1],
        "hit_limits": user.hit_limits,
    }
