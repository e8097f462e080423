from pathlib import Path
from typing import ClassVar

from services.core.data_folder.text_writers import (
    TextWriters,
    preference_writer,
    summary_writer,
)
from services.core.errors import EngineUnavailable
from services.core.prompts import SCORING_FINGERPRINT
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from tests.api.builders import IDENTITY, ScriptedEngine, an_app, put_catalogue, recommend, send


async def test_a_whole_service_is_ready(store: Store) -> None:
    answer = await send(an_app(store), "GET", "/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    components = {"redis", "engine", "artifacts", "adapters", "texts"}
    assert set(answer.json()["components"]) == components


async def test_without_its_engine_the_service_is_degraded_but_takes_requests(store: Store) -> None:
    engine = ScriptedEngine(failure=EngineUnavailable("gone"))
    answer = await send(an_app(store, engine), "GET", "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["components"]["engine"]["state"] == "degraded"


async def test_an_engine_heard_of_lately_is_not_asked_by_the_health_check(store: Store) -> None:
    engine = ScriptedEngine()
    app = an_app(store, engine)
    await recommend(app, candidates=["i1"])
    await send(app, "GET", "/health/ready")
    assert engine.asked == ["i1"]


async def test_an_engine_that_does_not_answer_the_health_check_is_degraded(store: Store) -> None:
    engine = ScriptedEngine(stalled=[""])  # the health check's question names no item
    app = an_app(store, engine, engine_wait_seconds=0.05)
    answer = await send(app, "GET", "/health/ready")
    assert "EngineTimeout" in answer.json()["components"]["engine"]["detail"]


async def test_metrics_count_requests_by_route_and_rankings_by_reason(store: Store) -> None:
    app = an_app(store, ScriptedEngine(failure=EngineUnavailable("gone")))
    await recommend(app, candidates=["i1"])
    await send(app, "GET", "/users/someone-private/preference")
    text = (await send(app, "GET", "/metrics")).text
    assert 'msr_recommendations_total{mode="cascade",reason="engine-unavailable"} 1.0' in text
    assert 'route="/users/{user_id}/preference",status="404"} 1.0' in text
    assert "someone-private" not in text


async def test_the_version_names_prompts_and_weights(store: Store) -> None:
    answer = (await send(an_app(store), "GET", "/version")).json()
    assert answer["prompts"]["scoring"] == SCORING_FINGERPRINT
    assert (answer["model"], answer["adapter"]) == ("scripted", "scripted-adapter")
    assert answer["retrieval"] == "rankers-of-tests"
    assert (answer["writer"], answer["writer_name"]) == (
        preference_writer(IDENTITY.model).identity,
        "scripted",
    )


async def test_the_version_names_a_writer_of_its_own(store: Store) -> None:
    writers = TextWriters(summary_writer("scripted"), preference_writer("w1", "My writer"))
    answer = (await send(an_app(store, writers=writers), "GET", "/version")).json()
    assert (answer["writer"], answer["writer_name"]) == (
        preference_writer("w1").identity,
        "My writer",
    )
    assert answer["model"] == "scripted"


async def test_a_redis_that_is_down_gives_503_at_once_and_is_found_again(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    store = await Store.open(redis.start())
    await put_catalogue(store)
    app = an_app(store)
    redis.stop()
    refused = await send(app, "POST", "/recommend", {"user_id": "u1"})
    ready = await send(app, "GET", "/health/ready")
    alive = await send(app, "GET", "/health/live")
    redis.start()
    answer = await recommend(app)
    await store.close()
    redis.stop()
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/state-unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert str(tmp_path) not in refused.text
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert len(answer["items"]) == 6


class ReplicatedEngine(ScriptedEngine):
    breaker_states: ClassVar = {"http://a:8001": "open", "http://b:8001": "closed"}
    num_hedges: ClassVar = {"won": 3, "lost": 1}


async def test_metrics_tell_which_model_server_is_left_out_and_what_was_asked_twice(
    store: Store,
) -> None:
    metrics = (await send(an_app(store, ReplicatedEngine()), "GET", "/metrics")).text

    assert 'msr_replica_breaker{replica="http://a:8001",state="open"} 1.0' in metrics
    assert 'msr_replica_breaker{replica="http://b:8001",state="open"} 0.0' in metrics
    assert 'msr_hedges_total{outcome="won"} 3.0' in metrics
