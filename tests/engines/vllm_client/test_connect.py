"""What the vLLM client checks before any work: the right weights on every server, and answers."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.core.errors import (
    AnswerTokenMissing,
    ArtifactMismatch,
    EngineUnavailable,
    InputError,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits
from services.engines.contract import AS_SERVED, EngineIdentity, EngineOptions
from services.engines.vllm_client.engine import VllmEngine
from services.engines.weight_labels import labels
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import (
    FakeServer,
    a_completion,
    an_engine,
    has_logged,
    network,
    until,
)

LIMITS = GenerationLimits(max_new_tokens=7)


def a_labelled_server(url: str = "http://a", *, adapter: str = "a1") -> FakeServer:
    server = FakeServer(url)
    server.labels = labels(EngineIdentity("m1", ""), {"lora": EngineIdentity("m1", adapter)})
    return server


def a_merged_server(url: str = "http://m", *, base: str = "m1") -> FakeServer:
    server = FakeServer(url)
    server.roots = {"merged": "weights of merged"}
    server.labels = labels(EngineIdentity(base, "merged-1"), {})
    return server


async def test_the_identity_is_the_one_in_the_servers_labels():
    engine = await an_engine(a_labelled_server(), a_labelled_server("http://b"))

    assert engine.identity == EngineIdentity("m1", "a1")


async def test_without_an_adapter_the_base_model_scores():
    engine = await an_engine(a_labelled_server(), adapter=None)

    assert engine.identity == EngineIdentity("m1", "")


async def test_what_is_served_need_not_be_named():
    engine = await an_engine(a_labelled_server(), model=AS_SERVED, adapter=AS_SERVED)

    assert engine.identity == EngineIdentity("m1", "a1")


@pytest.mark.parametrize(
    ("names", "told"),
    [({"model": "other"}, r"http://a serves \['base'\], not 'other'"),
     ({"model": "lora"}, r"http://a serves \['base'\], not 'lora'"),
     ({"adapter": "other"}, r"http://a serves the adapters \['lora'\], not 'other'")],
)  # fmt: skip
async def test_a_server_with_other_models_is_refused_with_what_it_serves(
    names: dict[str, str], told: str
):
    with pytest.raises(ModelUnusable, match=told):
        await an_engine(FakeServer(), **names)


async def test_replicas_with_different_adapters_are_refused_with_the_difference():
    with pytest.raises(ModelUnusable, match=r"http://b serves the adapter 'a2', not 'a1'"):
        await an_engine(a_labelled_server(), a_labelled_server("http://b", adapter="a2"))


async def test_replicas_with_different_answer_tokens_are_refused():
    other = a_labelled_server("http://b")
    other.answers = {"Yes": 80, "No": 71}

    with pytest.raises(ModelUnusable, match=r"http://b serves the answer tokens \(80, 71\)"):
        await an_engine(a_labelled_server(), other)


async def test_a_server_that_was_started_for_other_prompts_is_refused():
    server = a_labelled_server()
    server.labels = [label for label in server.labels if "definition" not in label]
    server.labels.append("msr:definition:another-one")

    with pytest.raises(ArtifactMismatch, match="another-one"):
        await an_engine(server)


async def test_a_model_whose_answers_begin_alike_is_refused():
    server = FakeServer()
    server.answers = {"Yes": 70, "No": 70}

    with pytest.raises(AnswerTokenMissing, match="token 70"):
        await an_engine(server)


async def test_a_web_server_that_is_no_vllm_is_refused():
    server = FakeServer()
    server.roots = {}

    with pytest.raises(EngineUnavailable, match="http://a/v1/models is not answered as a vLLM"):
        await an_engine(server)


# --- who is there --------------------------------------------------------------------------------


async def test_nobody_at_the_address_is_reported_before_any_work():
    server = FakeServer()
    server.down = True

    with pytest.raises(EngineUnavailable, match=r"no vLLM server answers .*http://a"):
        await an_engine(server)


async def test_a_server_that_accepts_and_never_answers_is_reported_in_time():
    server = FakeServer()
    server.frozen = True

    with pytest.raises(EngineUnavailable, match="accepts connections and does not answer"):
        await an_engine(server, timeout_seconds=0.1)


async def test_a_dead_server_is_left_out_as_long_as_another_answers_and_comes_back():
    dead = FakeServer("http://b")
    dead.down = True
    alive = FakeServer(complete=lambda _: a_completion())
    engine = await an_engine(alive, dead)
    await engine.score(a_prompt())

    with capture_logs() as logs:
        dead.down = False
        await until(has_logged(logs, "server_marked_up"))
    alive.down = True
    await engine.score(a_prompt())
    assert len(dead.bodies) == 1


async def test_who_is_patient_waits_for_a_server_that_starts():
    server = FakeServer()
    server.down = True
    connecting = asyncio.create_task(an_engine(server, patience_seconds=60))
    await asyncio.sleep(0)
    server.down = False

    assert (await connecting).identity.model == "weights of base"


@pytest.mark.parametrize("url", ["http://a/", "http://a/v1", "http://a/v1/"])
async def test_an_address_may_end_as_other_clients_want_it(url: str):
    assert (await an_engine(FakeServer(url))).identity.model == "weights of base"


@pytest.mark.parametrize("url", ["a:8000", "http://a:port", "http://"])
async def test_what_is_no_address_is_reported_before_it_is_tried(url: str):
    with pytest.raises(InputError, match="is not a server's address"):
        await VllmEngine.connect(EngineOptions("base", urls=[url]))


# --- a recommender of its own --------------------------------------------------------------------


async def with_recommender(merged: FakeServer, *servers: FakeServer) -> VllmEngine:
    options = EngineOptions(
        "base",
        urls=[server.url for server in servers],
        recommender_urls=[merged.url],
        recommender="merged",
    )
    return await VllmEngine.connect(options, send=network([merged, *servers]))


async def test_scores_go_to_the_merged_recommender_and_texts_to_the_base():
    base, merged = a_labelled_server(), a_merged_server()
    engine = await with_recommender(merged, base)
    await engine.score(a_prompt())
    await engine.generate(a_prompt(), LIMITS)

    assert engine.identity == EngineIdentity("m1", "merged-1")
    assert [body["model"] for body in merged.bodies] == ["merged"]
    assert [body["model"] for body in base.bodies] == ["base"]


async def test_a_recommender_that_was_merged_from_another_base_is_refused():
    with pytest.raises(ArtifactMismatch, match="merged from the base model m2"):
        await with_recommender(a_merged_server(base="m2"), a_labelled_server())


async def test_a_merged_checkpoint_writes_no_texts():
    merged = a_merged_server()
    engine = await an_engine(merged, model="merged", adapter=None)
    assert engine.identity == EngineIdentity("m1", "merged-1")

    with pytest.raises(ModelUnusable, match="merged"):
        await engine.generate(a_prompt(), LIMITS)


async def test_with_a_recommender_alone_nothing_is_written():
    engine = await with_recommender(a_merged_server())
    await engine.score(a_prompt())

    with pytest.raises(ModelUnusable, match="no server writes texts"):
        await engine.generate(a_prompt(), LIMITS)
