"""What stands before vLLM: only adapters that belong here are loaded, and they are told of."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest

from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.vllm_client.model_list import ModelList
from services.engines.vllm_server import adapter_middleware
from services.engines.vllm_server.adapter_middleware import AdapterMiddleware

BASE, SFT = str(DEMO_WEIGHTS / "base"), DEMO_WEIGHTS / "adapter-sft"
IDENTITY = identify(BASE, str(SFT))


class Vllm:
    """Stands for the server behind it, as ASGI: it loads whatever it is sent."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.fails = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"] or b"null")
        status, answer = 200, b"Success"
        if scope["path"] == "/v1/models":
            bases = [{"id": "demo", "root": BASE, "parent": None, "max_model_len": 4096}]
            loras = [{"id": n, "root": p, "parent": "demo"} for n, p in self.adapters.items()]
            answer = json.dumps({"object": "list", "data": bases + loras}).encode()
        elif self.fails:
            status, answer = 500, b'{"error": {"message": "out of memory"}}'
        elif scope["path"] == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = body["lora_path"]
        elif scope["path"] == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        else:
            answer = b"something else"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def vllm() -> Vllm:
    return Vllm()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copytree(SFT, tmp_path / "adapters" / "sft")
    return tmp_path / "adapters"


@pytest.fixture
def client(
    vllm: Vllm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], httpx.AsyncClient]:
    for name, value in adapter_middleware.environment(str(folder), model=IDENTITY.model).items():
        monkeypatch.setenv(name, value)
    app = AdapterMiddleware(vllm)
    return lambda: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://v")


async def load(http: httpx.AsyncClient, path: object, name: str = "x") -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path)}
    return await http.post("/v1/load_lora_adapter", json=body)


async def test_what_was_loaded_is_listed_as_if_it_had_been_served_from_the_start(
    client: Callable[[], httpx.AsyncClient], folder: Path
):
    async with client() as http:
        assert (await load(http, folder / "sft")).status_code == 200
        served = ModelList("http://v", (await http.get("/v1/models")).json())
        assert served.name_of(IDENTITY.adapter) == "x"
        assert served.choose("demo", "x").identity == IDENTITY
        await http.post("/v1/unload_lora_adapter", json={"lora_name": "x"})
        assert "msr:adapter" not in (await http.get("/v1/models")).text


@pytest.mark.parametrize(
    "path", [str(SFT), "{folder}", "{folder}/sft/../../other", "org/lora", "{folder}/missing"]
)
async def test_only_folders_below_the_named_one_are_loaded(
    client: Callable[[], httpx.AsyncClient], vllm: Vllm, folder: Path, path: str
):
    async with client() as http:
        answer = await load(http, path.format(folder=folder))
    assert answer.status_code == 400
    assert "adapter refused" in answer.json()["error"]["message"]
    assert vllm.adapters == {}


async def test_a_link_out_of_the_folder_is_not_followed(
    client: Callable[[], httpx.AsyncClient], vllm: Vllm, folder: Path
):
    (folder / "link").symlink_to(SFT)
    async with client() as http:
        assert (await load(http, folder / "link")).status_code == 400
    assert vllm.adapters == {}


@pytest.mark.parametrize("text", [IDENTITY.model, IDENTITY.adapter])
async def test_an_adapter_of_another_base_or_of_other_weights_is_not_loaded(
    client: Callable[[], httpx.AsyncClient], vllm: Vllm, folder: Path, text: str
):
    manifest = folder / "sft" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(text, "0" * 16))
    async with client() as http:
        assert (await load(http, folder / "sft")).status_code == 400
    assert vllm.adapters == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"lora_name": "x"}', b"x" * 100_000])
async def test_what_is_no_such_request_is_refused(
    client: Callable[[], httpx.AsyncClient], vllm: Vllm, body: bytes
):
    async with client() as http:
        assert (await http.post("/v1/load_lora_adapter", content=body)).status_code == 400
    assert vllm.adapters == {}


async def test_what_vllm_could_not_load_is_not_reported(
    client: Callable[[], httpx.AsyncClient], vllm: Vllm, folder: Path
):
    vllm.fails = True
    async with client() as http:
        failed = await load(http, folder / "sft")
        assert (failed.status_code, "out of memory" in failed.text) == (500, True)
        assert "msr:adapter" not in (await http.get("/v1/models")).text


async def test_vllms_other_way_to_load_adapters_is_closed_and_the_rest_is_open(
    client: Callable[[], httpx.AsyncClient],
):
    async with client() as http:
        assert (await http.post("/adapters", json={"name": "x", "src": "y"})).status_code == 404
        assert (await http.delete("/adapters/x")).status_code == 404
        assert (await http.get("/health")).text == "something else"
