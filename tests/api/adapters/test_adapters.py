"""Which adapters there are, and how the choice among them is made, refused, shared and kept."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

from services.api.adapters.active_adapters import LiveAdapters
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EngineUnavailable, ModelUnusable
from services.core.prompts import SCORING_FINGERPRINT
from services.core.scoring import Calibration
from services.engines.contract import EngineIdentity
from services.state import keys
from services.state.user_store import Store
from tests.api.adapter_builders import (
    MODEL,
    SERVED,
    SERVED_WEIGHTS,
    SFT,
    SFT_ITEMS,
    SFT_WEIGHTS,
    SwappingEngine,
    put_adapter,
)
from tests.api.builders import (
    IDENTITY,
    WITH_KEYS,
    ScriptedEngine,
    a_ranker,
    a_token,
    an_app,
    bearer,
    live_adapters,
    put_user,
    recommend,
    send,
)
from tests.artifact_builders import write_items


@pytest.fixture
def engine() -> SwappingEngine:
    return SwappingEngine()


@pytest.fixture
def live(store: Store, engine: SwappingEngine, tmp_path: Path) -> LiveAdapters:
    return live_adapters(store, engine, tmp_path)


@pytest.fixture
def app(store: Store, engine: SwappingEngine, live: LiveAdapters) -> FastAPI:
    return an_app(store, engine, adapters=live)


async def change(app: FastAPI, path: str, method: str = "POST", body: Any = None) -> dict[str, Any]:
    answer = await send(app, method, f"/adapters/{path}", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def listed(app: FastAPI) -> dict[str, dict[str, Any]]:
    answer = (await send(app, "GET", "/adapters")).json()
    return {each["name"]: each for each in answer["adapters"]}


# --- which there are -----------------------------------------------------------------------------


async def test_an_adapter_that_is_put_into_the_folder_is_listed_at_once(
    app: FastAPI, tmp_path: Path
) -> None:
    assert set(await listed(app)) == {"own"}
    put_adapter(tmp_path, "sft")
    sft = (await listed(app))["sft"]
    assert (sft["weights"], sft["fingerprint"]) == (SFT_WEIGHTS, "bca05d9c9f538e6c")
    assert (sft["stage"], sft["parent"], sft["model"]) == ("sft", "", MODEL)
    assert sft["validation"]["mrr@5"] == 0.737778
    assert sft["calibration"]["slope"] == pytest.approx(0.93, abs=0.01)
    assert (sft["servable"], sft["reason"], sft["roles"]) == (True, None, [])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (SCORING_FINGERPRINT, "older-prompt", "trained under scoring 'older-prompt'"),
        (MODEL, "another-base", "the base model another-base"),
        (SFT_WEIGHTS, "0123456789abcdef", "written for weights 0123456789abcdef"),
        ('"slope"', '"steepness"', "calibration lacks slope"),
    ],
)
async def test_one_that_cannot_be_served_says_why_and_is_refused_with_409(
    app: FastAPI, tmp_path: Path, before: str, after: str, expected: str
) -> None:
    put_adapter(tmp_path, "bad", **{before: after})
    bad = (await listed(app))["bad"]
    assert not bad["servable"]
    assert expected in bad["reason"]
    refused = await send(app, "POST", "/adapters/bad/activate")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/adapter-refused")
    assert expected in refused.json()["detail"]
    assert str(tmp_path) not in refused.text + str(bad)
    assert (await recommend(app))["adapter"] == "own"


async def test_damaged_weights_are_seen_also_when_they_were_fine_before(
    app: FastAPI, tmp_path: Path
) -> None:
    weights = put_adapter(tmp_path, "sft") / "adapter_model.safetensors"
    assert (await listed(app))["sft"]["servable"]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert "files of one training" in (await listed(app))["sft"]["reason"]


async def test_validation_on_another_catalogue_than_the_data_folders_is_foreign(
    store: Store, engine: SwappingEngine, tmp_path: Path
) -> None:
    data, folder = str(tmp_path / "data"), tmp_path / "adapters"
    write_items(data, {"i1": "one"})
    put_adapter(folder, "elsewhere")
    put_adapter(folder, "here", **{SFT_ITEMS: Artifact(data, "items").manifest().fingerprint})
    adapters = live_adapters(store, engine, folder)
    app = an_app(store, engine, adapters=adapters, data=data)
    await app.state.deps.caveats.look()
    foreign = {name: each["validation_is_foreign"] for name, each in (await listed(app)).items()}
    assert foreign == {"elsewhere": True, "here": False, "own": False}
    without_data = await listed(an_app(store, engine, adapters=adapters))
    assert not any(each["validation_is_foreign"] for each in without_data.values())


async def test_half_an_adapter_is_listed_and_not_servable(app: FastAPI, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    shutil.copy(SFT / "adapter_config.json", tmp_path / "half")
    half = (await listed(app))["half"]
    assert (half["servable"], half["stage"]) == (False, None)
    assert "holds no manifest.json" in half["reason"]


async def test_a_name_that_nobody_has_is_404(app: FastAPI) -> None:
    answer = await send(app, "POST", "/adapters/nobody/activate")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-adapter")


# --- activate and roll back ----------------------------------------------------------------------


async def test_the_next_request_is_scored_by_the_activated_adapter_with_its_calibration(
    app: FastAPI, tmp_path: Path, store: Store
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    put_adapter(tmp_path, "sft")
    assert (await recommend(app, candidates=["i2"]))["items"][0]["probability"] == 0.5
    answer = await change(app, "sft/activate")
    assert (answer["active"], answer["previous"]) == ("sft", "own")
    after = await recommend(app, candidates=["i2"])
    calibration = Calibration(0.9301562519319586, -1.553559309851063)
    assert after["items"][0]["probability"] == pytest.approx(calibration.probability(2.0))
    assert (after["adapter"], after["arm"], after["num_cached"]) == ("sft", None, 0)
    assert (await send(app, "GET", "/version")).json()["adapter"] == SFT_WEIGHTS


async def test_a_rollback_brings_the_previous_one_back_with_the_scores_it_had(
    app: FastAPI, tmp_path: Path, store: Store
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    put_adapter(tmp_path, "sft")
    await recommend(app, candidates=["i2"])
    await change(app, "sft/activate")
    answer = await change(app, "rollback")
    assert (answer["active"], answer["previous"]) == ("own", "sft")
    back = await recommend(app, candidates=["i2"])
    assert (back["adapter"], back["num_cached"]) == ("own", 1)
    assert (await change(app, "rollback"))["active"] == "sft"


async def test_without_a_previous_adapter_a_rollback_is_refused(app: FastAPI) -> None:
    assert (await send(app, "POST", "/adapters/rollback")).status_code == 409


async def test_activating_the_active_one_keeps_the_way_back(app: FastAPI, tmp_path: Path) -> None:
    put_adapter(tmp_path, "sft")
    await change(app, "sft/activate")
    assert (await change(app, "sft/activate"))["previous"] == "own"


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (ModelUnusable("out of memory at /srv/x"), 503, "model-unusable"),
        (EngineUnavailable("http://10.0.0.7 is away"), 503, "engine-unavailable"),
        (ArtifactMismatch("the server at http://10.0.0.7 has others"), 409, "adapter-refused"),
    ],
)
async def test_what_the_engine_cannot_load_leaves_the_old_one_active(
    app: FastAPI, engine: SwappingEngine, tmp_path: Path, failure: Any, status: int, slug: str
) -> None:
    put_adapter(tmp_path, "sft")
    engine.load_failure = failure
    answer = await send(app, "POST", "/adapters/sft/activate")
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert "10.0.0.7" not in answer.text + str(await listed(app))
    assert "/srv/x" not in answer.text
    assert (await recommend(app))["adapter"] == "own"
    engine.load_failure = None
    assert (await change(app, "sft/activate"))["active"] == "sft"


async def test_an_engine_that_takes_no_adapters_refuses_clearly(
    store: Store, tmp_path: Path
) -> None:
    engine = ScriptedEngine(identity=EngineIdentity(MODEL, SERVED_WEIGHTS))
    put_adapter(tmp_path, "sft")
    app = an_app(store, engine, adapters=live_adapters(store, engine, tmp_path))
    answer = await send(app, "POST", "/adapters/sft/activate")
    assert answer.status_code == 409
    assert "serves the adapter it was opened with, 'own'" in answer.json()["detail"]


async def test_changes_need_the_scope_admin_and_the_log_says_whose_key_it_was(
    store: Store, engine: SwappingEngine, live: LiveAdapters, tmp_path: Path
) -> None:
    app = an_app(store, engine, adapters=live, rules=WITH_KEYS)
    put_adapter(tmp_path, "sft")
    token = await a_token(store)
    with structlog.testing.capture_logs() as logs:
        answer = await send(app, "POST", "/adapters/sft/activate", headers=bearer(token))
    assert answer.status_code == 200
    [logged] = [log for log in logs if log["event"] == "adapters_changed"]
    assert (logged["active_before"], logged["active"]) == ("own", "sft")
    assert logged["by_key"] == token.split("_", 2)[1]


# --- fusion --------------------------------------------------------------------------------------


async def test_without_weights_of_its_own_an_adapter_ranks_by_its_margin_and_says_so(
    store: Store, engine: SwappingEngine, live: LiveAdapters, tmp_path: Path
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    put_adapter(tmp_path, "sft")
    ranker = a_ranker(model=MODEL, adapter=SERVED_WEIGHTS)
    app = an_app(store, engine, adapters=live, ranker=ranker)
    before = await recommend(app, candidates=["i2", "i6"])
    own = (await listed(app))["own"]
    await change(app, "sft/activate")
    after = await recommend(app, candidates=["i2", "i6"])
    sft = (await listed(app))["sft"]
    assert {item["scored_by"] for item in before["items"]} == {"mllm-fusion"}
    assert {item["scored_by"] for item in after["items"]} == {"mllm"}
    # Of equal margins the fusion of the cheap features, which is nobody's own, decides.
    assert [item["item_id"] for item in after["items"]] == ["i6", "i2"]
    assert (own["ranked_by"], own["note"]) == ("mllm-fusion", None)
    assert sft["ranked_by"] == "mllm"
    assert "msr fit-ranker --for-adapter" in sft["note"]
    assert (await send(app, "GET", "/version")).json()["final_order"] == "mllm"


# --- shared and kept -----------------------------------------------------------------------------


async def test_what_changes_nothing_chooses_nothing_but_activating_what_is_active_does(
    app: FastAPI, live: LiveAdapters
) -> None:
    await change(app, "experiment", "DELETE")
    await change(app, "shadow", "DELETE")
    await live.look()
    assert not live.is_chosen
    await change(app, "own/activate")
    await live.look()
    assert live.is_chosen


async def test_every_other_process_follows(app: FastAPI, store: Store, tmp_path: Path) -> None:
    put_adapter(tmp_path, "sft")
    elsewhere = live_adapters(store, SwappingEngine(), tmp_path)
    other = an_app(store, SwappingEngine(), adapters=elsewhere)
    await change(app, "sft/activate")
    assert (await recommend(other))["adapter"] == "own"
    await elsewhere.look()
    assert (await recommend(other))["adapter"] == "sft"
    await change(other, "rollback")
    await app.state.deps.adapters.look()
    assert (await recommend(app))["adapter"] == "own"


async def test_a_process_that_cannot_follow_serves_on_and_tells_until_it_can(
    app: FastAPI, store: Store, tmp_path: Path
) -> None:
    put_adapter(tmp_path, "sft")
    elsewhere = live_adapters(store, SwappingEngine(), tmp_path / "mounted-later")
    other = an_app(store, SwappingEngine(), adapters=elsewhere)
    await change(app, "sft/activate")
    await elsewhere.look()
    ready = (await send(other, "GET", "/health/ready")).json()
    assert (ready["status"], ready["components"]["adapters"]["state"]) == ("ok", "degraded")
    assert (await recommend(other))["adapter"] == "own"
    assert SFT_WEIGHTS in (await send(other, "GET", "/adapters")).json()["problem"]
    assert "msr_adapter_sync_failed 1.0" in (await send(other, "GET", "/metrics")).text
    put_adapter(tmp_path / "mounted-later", "sft")
    await elsewhere.look()
    assert (await recommend(other))["adapter"] == "sft"
    assert (await send(other, "GET", "/adapters")).json()["problem"] is None


async def test_a_restarted_process_begins_with_what_was_chosen(
    app: FastAPI, store: Store, tmp_path: Path
) -> None:
    put_adapter(tmp_path, "sft")
    await change(app, "sft/activate")
    restarted = live_adapters(store, SwappingEngine(), tmp_path)
    await restarted.look()
    assert (restarted.choice.active.name, restarted.is_chosen) == ("sft", True)
    assert restarted.active.identity.adapter == SFT_WEIGHTS


async def test_other_weights_under_the_chosen_name_are_not_what_was_chosen(
    app: FastAPI, store: Store, tmp_path: Path
) -> None:
    folder = put_adapter(tmp_path, "chosen")
    await change(app, "chosen/activate")
    shutil.rmtree(folder)
    put_adapter(tmp_path, "chosen", SERVED)
    restarted = live_adapters(store, SwappingEngine(), tmp_path)
    await restarted.look()
    assert f"no folder here holds the weights {SFT_WEIGHTS}" in restarted.problem


async def test_of_two_changes_from_one_state_the_second_is_refused(
    store: Store, engine: SwappingEngine, tmp_path: Path
) -> None:
    class Slow(SwappingEngine):
        """While it loads, somebody else activates."""

        async def load_adapter(self, folder: str) -> Any:
            await faster.activate("own-of-faster")
            return await super().load_adapter(folder)

    put_adapter(tmp_path, "sft")
    put_adapter(tmp_path, "own-of-faster", SERVED)
    faster = live_adapters(store, engine, tmp_path)
    app = an_app(store, engine, adapters=live_adapters(store, Slow(), tmp_path))
    answer = await send(app, "POST", "/adapters/sft/activate")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/state-conflict")
    assert (await recommend(app))["adapter"] == "own"


async def test_a_choice_for_another_base_model_is_nobodys_here(
    app: FastAPI, store: Store, tmp_path: Path
) -> None:
    put_adapter(tmp_path, "sft")
    await change(app, "sft/activate")
    other = live_adapters(store, ScriptedEngine(identity=IDENTITY), tmp_path)
    await other.look()
    assert (other.choice.active.name, other.problem) == ("own", "")


async def test_a_choice_that_cannot_be_read_is_reported_and_what_serves_goes_on(
    app: FastAPI, store: Store
) -> None:
    await store.connection.call("HSET", keys.ADAPTERS, MODEL, b"{")
    await app.state.deps.adapters.look()
    assert app.state.deps.adapters.problem.startswith("StateError")
    assert (await recommend(app))["adapter"] == "own"


async def test_an_adapter_that_nobody_wants_for_long_is_unloaded(
    store: Store, engine: SwappingEngine, tmp_path: Path
) -> None:
    live = live_adapters(store, engine, tmp_path, retire_seconds=0)
    put_adapter(tmp_path, "sft")
    await live.set_shadow("sft", 1.0)
    with live.lease_shadow():
        await live.set_shadow(None)
        await live.look()
        assert set(engine.loaded) == {SFT_WEIGHTS}  # somebody still uses it
    await live.look()
    assert engine.loaded == {}


async def test_the_previous_adapter_stays_loaded_for_a_rollback(
    store: Store, engine: SwappingEngine, tmp_path: Path
) -> None:
    live = live_adapters(store, engine, tmp_path, retire_seconds=0)
    put_adapter(tmp_path, "sft")
    await live.activate("sft")
    await live.roll_back()
    await live.look()
    await live.roll_back()
    assert engine.num_loads == 1
