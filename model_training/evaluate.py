"""Step 6, `msr evaluate`: how well the target item is ranked among negative samples.

Every test user gives one ranking task: the target and the frozen negatives of a protocol. The
multimodal model scores them through the engine and the function that serve, from the preference
written before the target; popularity, item-kNN and random stand beside it on the same tasks.

Ablations ask what the model relies on:
    blank covers        every cover replaced by an empty one of the same size
    other preference    every user judged by the preference of some other user
    no adapter          open the engine without one
Scores are kept shard by shard in the artifact `scores-PROTOCOL-VARIANT`, and a killed run resumes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from model_training import fit_retrieval, metrics
from model_training.inputs import Preferences, read_histories, read_items, read_preferences
from model_training.negatives import Trial, Trials, load_trials
from model_training.score_groups import DEFAULT_CONCURRENCY, ScoringGroup, score_groups
from services.core.artifacts import Artifact, Recipe
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.images import blank_image
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import Item, ItemId, UserId
from services.engines.contract import Engine
from services.retrieval.rankers import CheapRankers, CheapScores

MODELS = ("mllm", "popularity", "item-knn", "random")
CUTOFFS = (3, 5, 10)
USERS_PER_SHARD = 50
SEED = 2025

_SCHEMA = pa.schema([("user_id", pa.string()), ("margins", pa.list_(pa.float64()))])


async def run(
    data: str,
    engine: Engine | None,
    *,
    protocol: str = "chrono-uniform",
    models: Sequence[str] = MODELS,
    blank_covers: bool = False,
    other_preference: bool = False,
    preferences: str = "preferences",
    concurrency: int = DEFAULT_CONCURRENCY,
    users_per_shard: int = USERS_PER_SHARD,
) -> dict[str, object]:
    """`{model: {"auc", "auc_user", "hr@5", "mrr@5", "ndcg@5", ...}, "users", "candidates", ...}`.

    With "mllm" among the models, the test users are those with a preference; without it all of
    them, and no engine is needed. Raises InputError for an unknown model or protocol, TargetLeak or
    ArtifactMismatch for preferences that do not fit, and the engine's own errors.
    """
    started = time.perf_counter()
    if unknown := [name for name in models if name not in MODELS]:
        raise InputError(f"there is no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
    tasks = load_trials(data, protocol)
    trials = tasks.trials
    scores: dict[str, NDArray[np.float64]] = {}
    if "mllm" in models:
        if engine is None:
            raise InputError("scoring by the multimodal model needs an engine")
        written = read_preferences(data, read_histories(data), preferences)
        trials = tuple(trial for trial in trials if trial.user_id in written.by_user)
        if not trials:
            raise EmptyDataset(
                f"none of the {len(written.by_user)} users with a preference is a test user; build "
                "preferences for more users"
            )
        variant = _Variant(
            engine, protocol, preferences, blank_covers, other_preference, users_per_shard
        )
        scores["mllm"] = await _score_by_engine(
            data, variant, replace(tasks, trials=trials), written, concurrency
        )
    _require_one_user_a_row(trials)
    scores |= _score_cheaply(data, trials, models)
    return {
        **{name: _metrics(scores[name]) for name in models},
        "protocol": protocol,
        "users": len(trials),
        "candidates": len(trials[0].candidates),
        "negatives": tasks.fingerprint,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _require_one_user_a_row(trials: Sequence[Trial]) -> None:
    """Each row of scores is one user's, with the target once and first."""
    users = {trial.user_id for trial in trials}
    widths = {len(trial.candidates) for trial in trials}
    distinct = all(len(set(trial.candidates)) == len(trial.candidates) for trial in trials)
    if len(users) != len(trials) or len(widths) != 1 or not distinct:
        raise ArtifactMismatch(
            "the frozen negatives give a user two rows, rows of several lengths or a candidate "
            "twice; delete the folder of the negatives to draw them again"
        )


def _metrics(scores: NDArray[np.float64]) -> dict[str, float]:
    """All metrics of scores (U, C) whose first column is the target's."""
    labels = np.zeros(scores.shape, np.int64)
    labels[:, 0] = 1
    ranking = metrics.rank_targets(scores, labels)
    values = {"auc": metrics.auc(scores, labels), "auc_user": ranking.auc_user()}
    for k in CUTOFFS:
        values |= {
            f"hr@{k}": ranking.hr(k),
            f"mrr@{k}": ranking.mrr(k),
            f"ndcg@{k}": ranking.ndcg(k),
        }
    return {name: round(value, 4) for name, value in values.items()}


# --- the baselines -------------------------------------------------------------------------------


def _score_cheaply(
    data: str, trials: Sequence[Trial], models: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Scores (U, C) of the baselines among `models`."""
    scores: dict[str, NDArray[np.float64]] = {}
    readings: dict[str, Callable[[CheapScores], float]] = {
        "popularity": lambda candidate: candidate.popularity,
        "item-knn": lambda candidate: candidate.neighbors,
    }
    if wanted := [name for name in models if name in readings]:
        fit_retrieval.ensure(data)
        rankers = CheapRankers.load(data)
        rows = [rankers.score(trial.history, trial.candidates) for trial in trials]
        for name in wanted:
            scores[name] = np.array([[readings[name](found) for found in row] for row in rows])
    if "random" in models:
        shape = (len(trials), len(trials[0].candidates))
        scores["random"] = np.random.default_rng(SEED).random(shape)
    return scores


# --- the multimodal model ------------------------------------------------------------------------


class _Variant:
    """Which engine sees what: names the artifact of its scores and defines its recipe."""

    def __init__(
        self,
        engine: Engine,
        protocol: str,
        preferences: str,
        blank_covers: bool,
        other_preference: bool,
        users_per_shard: int,
    ) -> None:
        self.engine = engine
        self.preferences = preferences
        self.blank_covers = blank_covers
        self.other_preference = other_preference
        self.users_per_shard = users_per_shard
        parts = ["scores", protocol, "adapter" if engine.identity.adapter else "base"]
        parts += ["blank-covers"] * blank_covers + ["other-preference"] * other_preference
        parts += [preferences] * (preferences != "preferences")
        self.artifact_name = "-".join(parts)

    def recipe(self, trials: Trials, written: Preferences, items: str) -> Recipe:
        return Recipe(
            step="evaluate",
            definition={
                "prompt": SCORING_FINGERPRINT,
                "adapter": self.engine.identity.adapter,
                "blank_covers": self.blank_covers,
                "other_preference_seed": SEED if self.other_preference else None,
                "users_per_shard": self.users_per_shard,
                "num_users": len(trials.trials),
            },
            model=self.engine.identity.model,
            inputs={
                "items": items,
                "negatives": trials.fingerprint,
                self.preferences: written.manifest.fingerprint,
            },
        )


async def _score_by_engine(
    data: str, variant: _Variant, tasks: Trials, written: Preferences, concurrency: int
) -> NDArray[np.float64]:
    """Margins (U, C), target first; whole shards of an earlier run are taken over."""
    items_manifest = Artifact(data, "items").manifest()
    artifact = Artifact(data, variant.artifact_name)
    writer = artifact.write(variant.recipe(tasks, written, items_manifest.fingerprint))
    trials = tasks.trials
    texts: Mapping[UserId, str] = written.by_user
    if variant.other_preference:
        texts = _derange([trial.user_id for trial in trials], texts)
    blank = blank_image(items_manifest.definition["image_size"]) if variant.blank_covers else None
    starts = range(0, len(trials), variant.users_per_shard)
    with tqdm(total=len(trials), desc=variant.artifact_name, unit="user") as bar:
        for shard, start in enumerate(starts):
            chunk = trials[start : start + variant.users_per_shard]
            if not writer.has_shard(shard):
                items = _shown_items(data, chunk, blank)
                groups = [
                    ScoringGroup(
                        trial.user_id,
                        texts[trial.user_id],
                        tuple(items[item_id] for item_id in trial.candidates),
                    )
                    for trial in chunk
                ]
                rows = []
                async for user_id, scored in score_groups(
                    variant.engine, groups, concurrency=concurrency
                ):
                    margins = [candidate.margin for candidate in scored]
                    rows.append({"user_id": user_id, "margins": margins})
                    bar.update()
                writer.write_shard(shard, pa.Table.from_pylist(rows, _SCHEMA))
            else:
                bar.update(len(chunk))
    writer.finish(len(starts), {"users": len(trials)})
    table = artifact.read()
    if table["user_id"].to_pylist() != [trial.user_id for trial in trials]:
        raise ArtifactMismatch(f"{artifact.location} mixes users; delete the folder")
    return np.array(table["margins"].to_pylist())


def _shown_items(data: str, trials: Sequence[Trial], blank: bytes | None) -> dict[ItemId, Item]:
    """The candidates, their covers blanked if `blank` is given; text-only items stay text-only."""
    items = read_items(data, {item_id for trial in trials for item_id in trial.candidates})
    if blank is None:
        return items
    return {
        item_id: item if item.image is None else replace(item, image=blank)
        for item_id, item in items.items()
    }


def _derange(users: Sequence[UserId], texts: Mapping[UserId, str]) -> dict[UserId, str]:
    """Each user with the preference of another one, drawn by the seed."""
    if len(users) < 2:
        raise InputError("another user's preference needs at least two test users")
    order = np.random.default_rng(SEED).permutation(len(users)).tolist()
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return {user: texts[users[following[row]]] for row, user in enumerate(users)}
