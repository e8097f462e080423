"""The API's metrics of scores, caches and Redis."""

from pathlib import Path

from fastapi import FastAPI
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.api.monitoring.score_drift import FEWEST_SCORES, NUM_SCORES, ScoreDrift
from services.api.recommend.item_cache import ItemCache
from services.core.drift import ScoreHistogram
from services.engines.contract import EngineIdentity
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from tests.api.builders import ITEM_IDS, ScriptedEngine, an_app, put_catalogue, put_user, recommend

HALVES = ScoreHistogram((0.5,), (50, 50))
WITH_SCORES = EngineIdentity("scripted", "a1", validation_scores=HALVES)


def samples(app: FastAPI) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels."""
    text = generate_latest(app.state.deps.metrics.registry).decode()
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_scores_are_counted_by_adapter_once_each(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i2")
    app = an_app(store, ScriptedEngine({"i2": 3.0, "i3": -3.0}, identity=WITH_SCORES))
    for _ in range(2):
        await recommend(app, candidates=["i2", "i3"])

    values = samples(app)
    assert values["msr_score_probability_count", "a1"] == 2
    assert values["msr_score_probability_bucket", "a1", "0.05"] == 1
    assert values["msr_candidate_scores_total", "cached"] == 2
    assert values["msr_score_drift_window_scores", "a1"] == 2


async def test_scores_of_users_without_a_preference_are_no_drift(store: Store) -> None:
    app = an_app(store, ScriptedEngine(identity=WITH_SCORES))
    await recommend(app, "nobody", candidates=["i2"])

    values = samples(app)
    assert values["msr_score_probability_count", "a1"] == 1
    assert ("msr_score_drift_window_scores", "a1") not in values


def drift_of(drift: ScoreDrift) -> list[float]:
    return [sample.value for sample in next(drift.collect()).samples]


def test_a_drift_is_reported_once_there_are_scores_enough() -> None:
    drift = ScoreDrift()
    for number in range(FEWEST_SCORES - 1):
        drift.note(WITH_SCORES, number % 2)
    assert drift_of(drift) == []

    drift.note(WITH_SCORES, 1)
    assert drift_of(drift)[0] < 0.001


def test_a_drift_is_of_the_last_scores_alone() -> None:
    drift = ScoreDrift()
    for _ in range(FEWEST_SCORES):
        drift.note(WITH_SCORES, 0.9)
    assert drift_of(drift)[0] > 1
    for number in range(NUM_SCORES):
        drift.note(WITH_SCORES, number % 2)

    assert drift_of(drift)[0] < 0.001


def test_an_adapter_without_validation_scores_has_no_drift() -> None:
    drift = ScoreDrift()
    for _ in range(FEWEST_SCORES):
        drift.note(EngineIdentity("scripted", "old"), 0.9)

    assert drift_of(drift) == []


async def test_items_that_the_process_holds_are_hits(store: Store) -> None:
    app = an_app(store)
    await recommend(app, "u1", candidates=["i1", "i2"])
    await recommend(app, "u2", candidates=["i1"])
    app.state.deps.cascade.scorer.cold.clear()
    await recommend(app, "u2", candidates=["i1"])

    values = samples(app)
    assert values["msr_item_cache_lookups_total", "miss"] == 2
    assert values["msr_item_cache_lookups_total", "hit"] == 1
    assert values["msr_item_cache_bytes",] > 0


async def test_an_item_is_looked_for_once() -> None:
    lookups: list[tuple[int, int]] = []

    async def load(wanted: list) -> dict:
        return {}

    cache = ItemCache(load, 1000, lambda *found: lookups.append(found))
    await cache.get(dict.fromkeys(ITEM_IDS[:2], "v1"))

    assert lookups == [(0, 2)]


async def test_redis_reports_its_state_and_a_lost_one_is_reported_too(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    store = await Store.open(redis.start())
    await put_catalogue(store)
    app = an_app(store)
    watch = app.state.deps.redis_watch
    await watch.look()
    up = samples(app)
    redis.stop()
    await watch.look()
    await store.close()

    assert (up["msr_redis_up",], up["msr_redis_append_only",]) == (1, 1)
    assert up["msr_redis_used_bytes",] > 500_000
    assert up["msr_redis_writes_to_disk",] == 1
    assert samples(app)["msr_redis_up",] == 0


async def test_a_series_begins_at_zero(store: Store) -> None:
    values = samples(an_app(store))

    assert values["msr_recommendations_total", "cascade", "deadline"] == 0
    assert values["msr_candidate_scores_total", "late"] == 0
