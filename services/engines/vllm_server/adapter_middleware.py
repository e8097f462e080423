"""Middleware of a vLLM server that loads adapters while it runs: it restricts what is loaded.

vLLM itself loads any path or hub name. With this middleware (`msr serve-model --load-adapters-from
FOLDER`) it loads only folders directly below FOLDER whose manifest fits their weights, this base
model and these prompts. `/v1/models` then labels them as it labels the adapters that were given at
the start (`weight_labels.py`). So a client reads an adapter's identity where it was loaded.
"""

import asyncio
import json
import os
from pathlib import Path

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.core.errors import ArtifactMismatch, EngineError
from services.engines.checkpoints import identify_servable
from services.engines.contract import EngineIdentity
from services.engines.weight_labels import adapter_labels

log = structlog.get_logger(__name__)

MIDDLEWARE = f"{__name__}.AdapterMiddleware"
_FOLDER, _MODEL = "MSR_LOAD_ADAPTERS_FROM", "MSR_LOAD_ADAPTERS_ONTO"
# vLLM has the same routes under this prefix too.
_ALIAS_ROUTES = "/adapters"
_MAX_BODY_BYTES = 64 * 1024


def environment(folder: str, *, model: str) -> dict[str, str]:
    """What a server needs in its environment to load adapters of the base `model` from there."""
    return {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        _FOLDER: str(Path(folder).resolve()),
        _MODEL: model,
    }


def folders_in(folder: str) -> list[str]:
    """The adapters in the folder now; none if it does not exist."""
    return sorted(str(each.parent) for each in Path(folder).glob("*/adapter_config.json"))


class AdapterMiddleware:
    """ASGI middleware of a vLLM server."""

    def __init__(self, app: ASGIApp) -> None:
        """Created by vLLM without arguments, so its settings are in the environment."""
        self._app = app
        self._folder = Path(os.environ[_FOLDER])
        self._model = os.environ[_MODEL]
        self._loaded: dict[str, EngineIdentity] = {}
        self._routes: dict[tuple[str, str], ASGIApp] = {
            ("POST", "/v1/load_lora_adapter"): self._load,
            ("POST", "/v1/unload_lora_adapter"): self._unload,
            ("GET", "/v1/models"): self._list_models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on everything but loads that are refused."""
        asked = (scope["method"], scope["path"]) if scope["type"] == "http" else ("", "")
        if asked[1].startswith(_ALIAS_ROUTES):
            await _refusal(404, "not served here")(scope, receive, send)
            return
        await self._routes.get(asked, self._app)(scope, receive, send)

    async def _load(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        try:
            name, identity = await asyncio.to_thread(self._check, body)
        except (EngineError, ArtifactMismatch, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("adapter_not_loaded", error=str(error))
            await _refusal(400, f"adapter refused: {error}")(scope, receive, send)
            return
        status, answer = await self._call_vllm(scope, body)
        if status == 200:
            self._loaded[name] = identity
            log.info("adapter_loaded", name=name, adapter=identity.adapter)
        await _json(status, answer)(scope, receive, send)

    async def _unload(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        status, answer = await self._call_vllm(scope, body)
        if status == 200:
            self._loaded.pop(str(json.loads(body)["lora_name"]), None)
        await _json(status, answer)(scope, receive, send)

    async def _list_models(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, answer = await self._call_vllm(scope, b"")
        if status == 200:
            listing = json.loads(answer)
            served = {entry["id"] for entry in listing["data"]}
            listing["data"] += [
                {"id": label, "object": "model", "root": label, "parent": None}
                for name, identity in self._loaded.items()
                if name in served
                for label in adapter_labels(name, identity)
            ]
            answer = json.dumps(listing).encode()
        await _json(status, answer)(scope, receive, send)

    def _check(self, body: bytes) -> tuple[str, EngineIdentity]:
        asked = json.loads(body)
        folder = Path(asked["lora_path"]).resolve()
        if folder.parent != self._folder:
            raise ValueError(
                f"{folder} does not lie in {self._folder}, as --load-adapters-from asks"
            )
        return str(asked["lora_name"]), identify_servable(str(folder), model=self._model)

    async def _call_vllm(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        """The status and body of vLLM itself."""
        status, parts = 500, list[bytes]()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return status, b"".join(parts)


async def _read(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _MAX_BODY_BYTES:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body
    return b""  # which is no JSON, and so is refused


def _refusal(status: int, message: str) -> Response:
    return _json(status, json.dumps({"error": {"message": message}}).encode())


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")
