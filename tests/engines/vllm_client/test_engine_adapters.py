"""Adapters that vLLM servers are told to load: identified, on all replicas, after restarts too."""

import asyncio
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest

from services.core.errors import AdapterRefused, ArtifactMismatch, EngineUnavailable, ModelUnusable
from services.core.scoring import NOT_CALIBRATED
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import AS_SERVED, EngineIdentity, EngineOptions
from services.engines.vllm_client.engine import VllmEngine
from services.engines.weight_labels import adapter_labels, labels
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import (
    FakeServer,
    a_completion,
    an_engine,
    network,
    until,
)

BASE, SERVED, SFT = (str(DEMO_WEIGHTS / name) for name in ("base", "adapter", "adapter-sft"))
OWN, OTHER = identify(BASE, SERVED), identify(BASE, SFT)
NAME = f"adapter-sft@{OTHER.adapter}"


def answer_by_name(body: dict[str, Any]) -> httpx.Response:
    """The base and each adapter have answers of their own."""
    yes = {"base": -3.0, "lora": -2.0}.get(body["model"], -1.0)
    return a_completion(_70=yes, _71=-1.0)


def a_server(url: str = "http://a", **identity: Any) -> FakeServer:
    """Serves the demo base and its adapter as `lora`, and loads others."""
    server = FakeServer(url, answer_by_name)
    told = replace(OTHER, **identity)
    server.loads = True
    server.labels = labels(EngineIdentity(OWN.model, ""), {"lora": OWN})
    server.labels_of = lambda name, path: adapter_labels(name, told)
    return server


async def test_an_adapter_is_loaded_by_every_replica_and_both_score_at_once():
    servers = [a_server("http://a"), a_server("http://b")]
    engine = await an_engine(*servers)
    loaded = await engine.load_adapter(SFT)
    answers = await asyncio.gather(
        *(who.score(a_prompt(f"item {n}")) for n in range(8) for who in (engine, loaded))
    )
    await engine.close()

    assert (loaded.identity, engine.identity) == (OTHER, OWN)
    assert [answer.yes for answer in answers] == [-2.0, -1.0] * 8
    assert [server.roots[NAME] for server in servers] == [SFT, SFT]


async def test_one_that_is_served_already_is_not_loaded_and_needs_no_permission():
    server = a_server()
    server.loads = False
    server.roots["summer"] = "/elsewhere"
    server.adapters.add("summer")
    server.labels = [*server.labels, *adapter_labels("summer", OTHER)]
    engine = await an_engine(server)
    loaded = await engine.load_adapter(SFT)
    await loaded.score(a_prompt())
    await engine.unload_adapter(loaded)
    await engine.close()

    assert server.bodies[-1]["model"] == "summer"
    assert "summer" in server.roots


async def test_what_another_process_has_had_loaded_is_used():
    server = a_server()
    first, second = await an_engine(server), await an_engine(server)
    loaded = await asyncio.gather(first.load_adapter(SFT), second.load_adapter(SFT))
    answers = [await each.score(a_prompt()) for each in loaded]
    await asyncio.gather(first.close(), second.close())

    assert [answer.yes for answer in answers] == [-1.0, -1.0]
    assert server.num_loads == 1


async def test_what_was_loaded_at_run_time_is_not_what_a_later_client_takes_for_the_servers_own():
    server = a_server()
    first = await an_engine(server)
    await first.load_adapter(SFT)
    later = await an_engine(server, model=AS_SERVED, adapter=AS_SERVED)
    await asyncio.gather(first.close(), later.close())

    assert later.identity == OWN


async def test_a_server_that_loads_none_is_refused_with_the_remedy():
    server = a_server()
    server.loads = False
    engine = await an_engine(server)
    with pytest.raises(AdapterRefused, match="--load-adapters-from"):
        await engine.load_adapter(SFT)
    assert (await engine.score(a_prompt())).yes == -2.0
    await engine.close()


@pytest.mark.parametrize("wrong", [{"adapter": "0" * 16}, {"calibration": NOT_CALIBRATED}])
async def test_a_server_that_has_other_weights_there_is_refused(wrong: dict[str, Any]):
    engine = await an_engine(a_server(**wrong))
    with pytest.raises((ArtifactMismatch, ModelUnusable), match="let both see the same folder"):
        await engine.load_adapter(SFT)
    assert (await engine.score(a_prompt())).yes == -2.0
    await engine.close()


async def test_a_server_without_labels_is_believed_where_its_folder_can_be_read():
    server = a_server()
    server.labels_of = lambda name, path: []
    engine = await an_engine(server)
    loaded = await engine.load_adapter(SFT)
    await engine.close()

    assert loaded.identity == OTHER


async def test_an_adapter_that_the_server_does_not_get_loaded_is_unusable():
    server = a_server()
    server._load = lambda body: httpx.Response(500, json={"error": {"message": "rank 512"}})  # type: ignore[method-assign]
    engine = await an_engine(server)
    with pytest.raises(ModelUnusable, match=r"did not load the adapter .*rank 512"):
        await engine.load_adapter(SFT)
    await engine.close()


async def test_a_damaged_adapter_never_reaches_a_server(tmp_path: Path):
    server = a_server()
    engine = await an_engine(server)
    folder = copytree(SFT, tmp_path / "damaged")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelUnusable, match="files of one training"):
        await engine.load_adapter(str(folder))
    await engine.close()
    assert server.num_loads == 0


async def test_a_replica_that_comes_back_without_the_adapter_loads_it_again():
    servers = [a_server("http://a"), a_server("http://b")]
    engine = await an_engine(*servers)
    loaded = await engine.load_adapter(SFT)
    servers[0].restart()
    answers = await asyncio.gather(*(loaded.score(a_prompt(f"item {n}")) for n in range(16)))

    await until(lambda: servers[0].num_loads == 2)
    again = await asyncio.gather(*(loaded.score(a_prompt(f"item {n}")) for n in range(16)))
    await engine.close()
    assert {answer.yes for answer in (*answers, *again)} == {-1.0}


async def test_a_replica_that_was_away_loads_it_when_it_is_there():
    servers = [a_server("http://a"), a_server("http://b")]
    engine = await an_engine(*servers)
    servers[1].down = True
    loaded = await engine.load_adapter(SFT)
    assert (await loaded.score(a_prompt())).yes == -1.0
    servers[1].down = False
    await until(lambda: servers[1].num_loads)
    await engine.close()


async def test_without_any_server_loading_fails_and_says_so():
    server = a_server()
    engine = await an_engine(server)
    server.down = True
    with pytest.raises(EngineUnavailable):
        await engine.load_adapter(SFT)
    await engine.close()


async def test_an_unloaded_adapter_is_given_up_by_the_servers():
    server = a_server()
    engine = await an_engine(server)
    await engine.unload_adapter(await engine.load_adapter(SFT))
    assert NAME not in server.roots
    assert (await engine.score(a_prompt())).yes == -2.0
    await engine.close()


async def test_a_merged_recommender_takes_no_adapter():
    writer, merged = a_server("http://a"), FakeServer("http://b", answer_by_name)
    merged.roots = {"base": "weights of base"}
    merged.labels = labels(OWN, {})
    options = EngineOptions(
        "base", urls=["http://a"], recommender="base", recommender_urls=["http://b"]
    )
    engine = await VllmEngine.connect(options, send=network([writer, merged]))
    with pytest.raises(AdapterRefused, match="merged checkpoint"):
        await engine.load_adapter(SFT)
    await engine.close()
