"""The `vllm` engine: an HTTP client of a vLLM OpenAI-compatible server.

The server batches, caches prefixes and holds the weights; an adapter is chosen by its model name.
A score asks for one token and for the log-probabilities of just the two answer tokens
(`logprob_token_ids`), which the server returns raw whatever its logprobs mode is.
"""

import base64
from typing import Any

import httpx

from services.core.errors import (
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits, Message, Messages
from services.core.scoring import NO, YES, AnswerLogprobs, AnswerTokens, find_answer_tokens
from services.engines.contract import EngineIdentity

_PROBE: Messages = (Message("user", "Yes or No?"),)
_OVERLOADED = (429, 503)


class VllmEngine:
    """Implements `contract.Engine` over one server. Open it with `VllmEngine.connect`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        identity: EngineIdentity,
        answers: AnswerTokens,
        *,
        model: str,
        recommender: str,
    ) -> None:
        """Use `connect`. `model` writes and `recommender` scores: names that the server lists."""
        self._http = http
        self._identity = identity
        self._answers = answers
        self._model = model
        self._recommender = recommender

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        model: str,
        adapter: str | None = None,
        timeout_seconds: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> "VllmEngine":
        """Check what the server serves and find its answer tokens.

        `transport` replaces the network. Raises EngineUnavailable if the server does not answer,
        ModelUnusable if it serves other models, AnswerTokenMissing if they have no Yes and No.
        """
        # The offline steps keep thousands of prompts in flight: the server queues, not the pool.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        http = httpx.AsyncClient(
            base_url=url, timeout=timeout_seconds, limits=limits, transport=transport
        )
        try:
            served = await _served_models(http, url)
            for name in (model, adapter):
                if name is not None and name not in served:
                    raise ModelUnusable(
                        f"the server at {url} serves {sorted(served)}, not {name!r}; name one of "
                        "these, or start the server with this model and --lora-modules"
                    )
            identity = EngineIdentity(model=served[model], adapter=served.get(adapter or "", ""))
            recommender = adapter or model
            answers = await _find_answers(http, recommender)
        except EngineError:
            await http.aclose()
            raise
        return cls(http, identity, answers, model=model, recommender=recommender)

    @property
    def identity(self) -> EngineIdentity:
        """Which weights the server says it serves under the names in use."""
        return self._identity

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        choice = await self._complete(self._model, messages, max_tokens=limits.max_new_tokens)
        return str(choice["message"]["content"] or "").strip()

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        choice = await self._complete(
            self._recommender,
            messages,
            max_tokens=1,
            logprobs=True,
            logprob_token_ids=[self._answers.yes, self._answers.no],
            return_tokens_as_token_ids=True,
        )
        position = choice["logprobs"]["content"][0]
        logprob_of = {entry["token"]: entry["logprob"] for entry in position["top_logprobs"]}
        try:
            return AnswerLogprobs(
                yes=logprob_of[f"token_id:{self._answers.yes}"],
                no=logprob_of[f"token_id:{self._answers.no}"],
            )
        except KeyError as error:
            raise AnswerTokenMissing(
                f"the server returned log-probabilities of {sorted(logprob_of)}, without "
                f"{error.args[0]!r}; it must support logprob_token_ids (vLLM 0.32)"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _complete(self, model: str, messages: Messages, **options: Any) -> dict[str, Any]:
        body = {"model": model, "messages": _openai_content(messages), "temperature": 0, **options}
        answer = await _post(self._http, "/v1/chat/completions", body)
        choice: dict[str, Any] = answer["choices"][0]
        return choice


async def _find_answers(http: httpx.AsyncClient, recommender: str) -> AnswerTokens:
    rendered: dict[str | None, list[int]] = {}
    for word in (None, YES, NO):
        messages = _PROBE if word is None else (*_PROBE, Message("assistant", word))
        body = {
            "model": recommender,
            "messages": _openai_content(messages),
            "add_generation_prompt": word is None,
            "add_special_tokens": False,
        }
        rendered[word] = (await _post(http, "/tokenize", body))["tokens"]
    return find_answer_tokens(lambda word: rendered[word])


async def _post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        response = await http.post(path, json=body)
    except httpx.TimeoutException as error:
        raise EngineTimeout(f"{http.base_url}{path}: no answer in {http.timeout.read} s") from error
    except httpx.TransportError as error:
        raise EngineUnavailable(
            f"{http.base_url} cannot be reached ({error}); is the vLLM server running?"
        ) from error
    if response.is_success:
        answer: dict[str, Any] = response.json()
        return answer
    detail = f"{http.base_url}{path} answered {response.status_code}: {response.text[:300]}"
    if response.status_code in _OVERLOADED:
        raise EngineOverloaded(detail)
    if response.is_client_error:
        raise EngineRefused(detail)
    raise EngineUnavailable(detail)


async def _served_models(http: httpx.AsyncClient, url: str) -> dict[str, str]:
    """Name -> where the server took the weights from, for every model and adapter it serves."""
    try:
        response = (await http.get("/v1/models")).raise_for_status()
    except httpx.HTTPError as error:
        raise EngineUnavailable(
            f"no vLLM server answers at {url} ({error}); start one, or use --engine local"
        ) from error
    return {entry["id"]: entry.get("root") or entry["id"] for entry in response.json()["data"]}


def _openai_content(messages: Messages) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": _parts(message)} for message in messages]


def _parts(message: Message) -> list[dict[str, Any]] | str:
    if message.picture is None:
        return message.text
    encoded = base64.b64encode(message.picture.data).decode()
    return [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/jpeg;base64,{encoded}"},
            "uuid": f"{message.picture.item_id}:{message.picture.version}",
        },
        {"type": "text", "text": message.text},
    ]
