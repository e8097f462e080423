"""Scores users' ranking tasks by the multimodal model, for evaluation and for fusion.

Scores come from the engine and the function that serve, with the preference written before the
target. They are stored shard by shard in the artifact `scores-PROTOCOL[-validation]-VARIANT`, so a
killed run resumes.

An ablation takes one input from the model, to show how much the model relies on it:
    cover        every image is replaced by a blank one of the same shape
    preference   no user has a preference
    user         every user has the preference of another user
    direct       preferences are written in one go (`msr build-preferences --direct`)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_training.data.inputs import Inputs, open_inputs
from model_training.data.protocols import find_protocol
from model_training.data.ranking_tasks import EvaluatedSplit, RankingTask, load_ranking_tasks
from model_training.scoring.score_users import DEFAULT_CONCURRENCY, UserCandidates, score_users
from services.core.artifacts import Artifact, Recipe
from services.core.data_folder.steps import preferences_name
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.images import blank_like
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import Item, ItemId, UserId
from services.engines.contract import Engine, EngineIdentity
from services.sharding.ray_workers import RayWorkers
from services.sharding.sharded_job import Advance
from services.sharding.sharded_step import ShardedStep

Ablation = Literal["cover", "preference", "user", "direct"]

ABLATIONS = get_args(Ablation)
USERS_PER_SHARD = 50
SEED = 2025

_SCHEMA = pa.schema([("user_id", pa.string()), ("margins", pa.list_(pa.float64()))])


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """What to score, and by which engine: all that is sent to a Ray worker.

    `data` is an absolute root. Test users are evaluated; fusion is fitted on validation users.
    """

    data: str
    identity: EngineIdentity
    protocol: str
    split: EvaluatedSplit = "test"
    ablate: Ablation | None = None
    users_per_shard: int = USERS_PER_SHARD
    concurrency: int = DEFAULT_CONCURRENCY

    @property
    def artifact_name(self) -> str:
        """The artifact of the scores; each variant has its own."""
        parts = ["scores", self.protocol, *["validation"] * (self.split == "validation")]
        parts += ["adapter" if self.identity.adapter else "base"]
        parts += ["ablate", self.ablate] if self.ablate else []
        return "-".join(parts)

    @property
    def preferences(self) -> str:
        """The artifact of the preferences that users are scored by."""
        cut = find_protocol(self.protocol).cut
        return preferences_name(cut, direct=self.ablate == "direct")


@dataclass(frozen=True, kw_only=True)
class ScoringPlan(ShardedStep[ScoringRequest]):
    """What scoring starts from, and what it does to each shard of users.

    `texts` are the users' preferences.
    """

    inputs: Inputs = field(repr=False)
    tasks: Sequence[RankingTask]
    texts: Mapping[UserId, str] = field(repr=False)

    @classmethod
    def plan(cls, request: ScoringRequest, inputs: Inputs | None = None) -> "ScoringPlan":
        """Read the tasks of the users that have a preference; `inputs` are of the request's data.

        The protocol has frozen negatives. Raises EmptyDataset if no user of the split has a
        preference, TargetLeak or ArtifactMismatch for preferences that do not fit.
        """
        inputs = inputs or open_inputs(request.data)
        protocol = find_protocol(request.protocol)
        frozen = load_ranking_tasks(inputs, protocol, request.split)
        written = inputs.read_preferences(request.preferences, cut=protocol.cut)
        tasks = tuple(task for task in frozen.tasks if task.user_id in written.by_user)
        if not tasks:
            raise EmptyDataset(
                f"none of the {len(written.by_user)} users with a preference is a {request.split} "
                "user; build preferences for more users"
            )
        recipe = Recipe(
            step="evaluate",
            definition={
                "prompt": SCORING_FINGERPRINT,
                "adapter": request.identity.adapter,
                "ablate": request.ablate,
                "seed": SEED,
                "users_per_shard": request.users_per_shard,
                "num_users": len(tasks),
            },
            model=request.identity.model,
            inputs={
                "items": inputs.items.fingerprint,
                "negatives": frozen.fingerprint,
                request.preferences: written.manifest.fingerprint,
            },
        )
        texts = written.by_user
        if request.ablate == "user":
            texts = _derange([task.user_id for task in tasks], texts)
        elif request.ablate == "preference":
            texts = dict.fromkeys(texts, "")
        return cls(
            request=request,
            num_rows=len(tasks),
            shard_size=request.users_per_shard,
            inputs=inputs,
            writer=Artifact(inputs.data, request.artifact_name).write(recipe),
            tasks=tasks,
            texts=texts,
        )

    async def run_shard(self, engine: Engine, shard: int, advance: Advance) -> None:
        """Score the candidates of a shard of users, and write the margins."""
        tasks = self.tasks[slice(*self.bounds(shard))]
        items = self._read_candidates(tasks)
        users = (
            UserCandidates(
                task.user_id,
                self.texts[task.user_id],
                tuple(items[item_id] for item_id in task.candidates),
            )
            for task in tasks
        )
        rows = []
        concurrency = self.request.concurrency
        async for user_id, scored in score_users(engine, users, concurrency=concurrency):
            margins = [candidate.margin for candidate in scored]
            rows.append({"user_id": user_id, "margins": margins})
            advance(1)
        self.writer.write_shard(shard, pa.Table.from_pylist(rows, _SCHEMA))

    def _read_candidates(self, tasks: Sequence[RankingTask]) -> dict[ItemId, Item]:
        """The candidates, with blank images for the ablation; text-only items stay text-only."""
        wanted = {item_id for task in tasks for item_id in task.candidates}
        items = self.inputs.read_items(wanted)
        if self.request.ablate != "cover":
            return items
        return {
            item_id: item if item.image is None else replace(item, image=blank_like(item.image))
            for item_id, item in items.items()
        }


async def score_tasks(
    plan: ScoringPlan, engine: Engine | RayWorkers
) -> tuple[NDArray[np.float64], int]:
    """Margins (U, C) of the plan's tasks, target first, and the number of shortened prompts.

    Shards of an earlier run are kept, and its prompts are counted only if it finished. Raises the
    engine's own errors.
    """
    artifact, finished = plan.writer.artifact, plan.writer.finished
    is_complete = finished and not plan.left()
    num_shortened = await plan.run_left(engine, desc=plan.request.artifact_name, unit="user")
    if is_complete:
        num_shortened = artifact.manifest().counts["shortened"]
    else:
        counts = {"users": len(plan.tasks), "shortened": num_shortened}
        plan.writer.finish(plan.num_shards, counts)
    table = artifact.read()
    if table["user_id"].to_pylist() != [task.user_id for task in plan.tasks]:
        raise ArtifactMismatch(f"{artifact.location} mixes users; delete the folder")
    return np.array(table["margins"].to_pylist()), num_shortened


def _derange(users: Sequence[UserId], texts: Mapping[UserId, str]) -> dict[UserId, str]:
    """Each user with the preference of another one, drawn by the seed."""
    if len(users) < 2:
        raise InputError("another user's preference needs at least two users")
    order = np.random.default_rng(SEED).permutation(len(users)).tolist()
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return {user: texts[users[following[row]]] for row, user in enumerate(users)}
