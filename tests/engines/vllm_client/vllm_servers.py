"""vLLM servers made of Python, for faults that a real one cannot be made to show."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
from aiohttp import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from services.engines.contract import EngineOptions
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_client.server_http import HttpResponse, Send

Answer = Callable[[dict[str, Any]], httpx.Response | Awaitable[httpx.Response]]

YES, NO = 70, 71
MAX_TOKENS = 4096


def a_completion(
    text: str = "", finish_reason: str | None = "stop", **logprobs: Any
) -> httpx.Response:
    """`a_completion(_70=-0.25)`: the log-probability of token 70."""
    logprobs = logprobs or {f"_{YES}": -0.25, f"_{NO}": -1.5}
    top = [{"token": f"token_id:{token[1:]}", "logprob": p} for token, p in logprobs.items()]
    choice = {
        "message": {"content": text},
        "logprobs": {"content": [{"top_logprobs": top}]},
        "finish_reason": finish_reason,
    }
    # As vLLM is written in Python, it could send a NaN, which httpx would not encode.
    return httpx.Response(200, content=json.dumps({"choices": [choice]}))


def an_error(status: int, message: str = "why not", param: str | None = None) -> httpx.Response:
    error = {"message": message, "type": "Error", "param": param, "code": status}
    return httpx.Response(status, json={"error": error})


class FakeServer:
    """Serves `base` and its adapter `lora`, and answers completions as it is told.

    It loads adapters if it `loads`, and tells `labels_of` them. Its own check is answered whatever
    `complete` does, unless the server is `down` or `frozen`. Every word is a token here.
    """

    def __init__(self, url: str = "http://a", complete: Answer = lambda _: a_completion()):
        self.url = url
        self.complete = complete
        self.roots = {"base": "weights of base", "lora": "weights of lora"}
        self.labels: Sequence[str] = ()
        self.adapters = {"lora"}
        self.loads = False
        self.labels_of: Callable[[str, str], list[str]] = lambda name, path: []
        self.num_loads = 0
        self.answers = {"Yes": YES, "No": NO}
        self.down = False
        self.frozen = False
        self.holds: set[str] = set()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.asked = asyncio.Event()
        self.asked_for_health = asyncio.Event()
        self.num_checks = 0
        self.num_running = 0

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise connection_refused(request.url.host)
        if request.url.path != "/v1/chat/completions":
            await self._thawed()
        body = json.loads(request.content) if request.content else {}
        match request.url.path:
            case "/v1/models":
                self.num_checks += 1
                return self._models()
            case "/health":
                self.asked_for_health.set()
                return httpx.Response(200)
            case "/tokenize":
                return self._tokenize(body)
            case "/v1/load_lora_adapter" if self.loads:
                return self._load(body)
            case "/v1/unload_lora_adapter" if self.loads:
                self.roots.pop(body["lora_name"], None)
                return httpx.Response(200, text="Success")
            case "/v1/load_lora_adapter" | "/v1/unload_lora_adapter":
                return httpx.Response(404, json={"detail": "Not Found"})
        if body["model"] not in self.roots:
            return an_error(404, f"The model `{body['model']}` does not exist.")
        if body["messages"] == [{"role": "user", "content": "Yes or No?"}]:
            return a_completion(**{f"_{token}": -1.0 for token in body["logprob_token_ids"]})
        self.headers.append(request.headers)
        return await self._complete(body)

    async def _complete(self, body: dict[str, Any]) -> httpx.Response:
        self.bodies.append(body)
        self.asked.set()
        self.num_running += 1
        try:
            await self._thawed()
            answer = self._miss(body) or self.complete(body)
            return await answer if inspect.isawaitable(answer) else answer
        finally:
            self.num_running -= 1

    async def _thawed(self) -> None:
        while self.frozen:  # noqa: ASYNC110 (tests set it as they please)
            await asyncio.sleep(0.01)

    def _miss(self, body: dict[str, Any]) -> httpx.Response | None:
        parts = [part for turn in body["messages"] for part in turn["content"]]
        for part in parts:
            if isinstance(part, dict) and part["type"] == "image_url":
                if part["image_url"] is None and part["uuid"] not in self.holds:
                    return an_error(400, "Cache miss for image at index 0 but data is not provided")
                self.holds.add(part["uuid"])
        return None

    def _load(self, body: dict[str, Any]) -> httpx.Response:
        """As vLLM does: 400 for a name that is taken."""
        name, path = body["lora_name"], body["lora_path"]
        if name in self.roots:
            return an_error(400, f"The lora adapter '{name}' has already been loaded.")
        self.num_loads += 1
        self.roots[name] = path
        self.adapters.add(name)
        self.labels = [*self.labels, *self.labels_of(name, path)]
        return httpx.Response(200, text="Success")

    def restart(self) -> None:
        """Come back with what it was started with."""
        for name in self.adapters - {"lora"}:
            del self.roots[name]
        self.adapters = {"lora"}

    def _models(self) -> httpx.Response:
        served = [
            {"id": name, "root": root, "parent": "base" if name in self.adapters else None,
             "max_model_len": MAX_TOKENS}
            for name, root in self.roots.items()
        ]  # fmt: skip
        named = [{"id": label, "root": "", "max_model_len": MAX_TOKENS} for label in self.labels]
        return httpx.Response(200, json={"data": served + named})

    def _tokenize(self, body: dict[str, Any]) -> httpx.Response:
        tokens: list[int] = []
        for turn in body["messages"]:
            content = turn["content"]
            text = content if isinstance(content, str) else content[-1]["text"]
            tokens += [self.answers.get(word, 5) for word in text.split()]
            tokens += [] if isinstance(content, str) else [9] * 100
        return httpx.Response(200, json={"tokens": tokens, "count": len(tokens)})


def network(servers: Sequence[FakeServer]) -> Send:
    """Where each server has the host of its URL."""
    server_at = {URL(server.url).host: server for server in servers}

    async def send(
        method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> HttpResponse:
        request = httpx.Request(method, str(url), content=body, headers=dict(headers))
        answer = await server_at[url.host].handle(request)
        return HttpResponse(answer.status_code, answer.headers, answer.content)

    return send


def connection_refused(host: str) -> ClientConnectorError:
    """As aiohttp raises it when nothing listens."""
    address = ConnectionKey(host, 80, False, True, None, None, None)
    return ClientConnectorError(address, OSError(111, "refused"))


async def an_engine(*servers: FakeServer, **options: Any) -> VllmEngine:
    given = {"model": "base", "adapter": "lora"} | options
    urls = [server.url for server in servers]
    return await VllmEngine.connect(EngineOptions(urls=urls, **given), send=network(servers))


def has_logged(logs: Sequence[Mapping[str, Any]], event: str) -> Callable[[], bool]:
    return lambda: any(log["event"] == event for log in logs)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until it holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (the client sets no event for it)
            await asyncio.sleep(0.01)
