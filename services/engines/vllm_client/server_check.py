"""The checks that a server passes before it gets prompts: right weights, answer tokens, an answer.

A server that was down passes them again: it may have been restarted with other weights.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from services.core.errors import (
    AdapterRefused,
    ArtifactMismatch,
    EngineRefused,
    EngineTimeout,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits
from services.core.scoring import AnswerTokens, find_answer_tokens
from services.engines.contract import EngineIdentity
from services.engines.rendering import PROBES, adds_special_tokens
from services.engines.vllm_client.chat_requests import score_request, text_request, tokens_request
from services.engines.vllm_client.model_list import ModelList, Weights
from services.engines.vllm_client.server_http import AttemptFailed, ServerHttp

# vLLM has these routes only if it may load adapters; else its web framework answers.
LOAD_ADAPTER, UNLOAD_ADAPTER = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
NO_SUCH_ROUTE = "Not Found"


@dataclass(frozen=True, slots=True)
class VerifiedServer:
    """What a server serves. Servers of one pool must agree, except in their descriptions."""

    weights: Weights
    answers: AnswerTokens | None  # None: it only writes texts
    adds_special_tokens: bool
    description: str = field(compare=False)

    def difference(self, other: "VerifiedServer") -> str:
        """What differs: `the name in this one, not in the other`."""
        return ", ".join(
            f"{name} {mine!r}, not {theirs!r}"
            for (name, mine), (_, theirs) in zip(self._facts(), other._facts(), strict=True)
            if mine != theirs
        )

    def _facts(self) -> list[tuple[str, object]]:
        weights = self.weights
        return [
            ("the name", weights.model),
            ("the base model", weights.identity.model),
            ("the adapter's name", weights.adapter),
            ("the adapter", weights.identity.adapter),
            ("the calibration", weights.identity.calibration),
            ("a --max-model-len of", weights.max_tokens),
            ("the answer tokens", self.answers and (self.answers.yes, self.answers.no)),
            ("special tokens added by the tokenizer:", self.adds_special_tokens),
        ]


@dataclass(frozen=True, slots=True)
class RuntimeAdapter:
    """An adapter that a server loads if it does not serve it yet.

    The server sees the same folder under the same path.
    """

    folder: str
    identity: EngineIdentity

    @property
    def name(self) -> str:
        """The name under which servers load it; no other weights ever get it."""
        return f"{Path(self.folder).name}@{self.identity.adapter}"


async def verify_server(
    http: ServerHttp,
    model: str,
    adapter: str | RuntimeAdapter | None,
    *,
    within_seconds: float,
    texts_only: bool = False,
) -> VerifiedServer:
    """What the server serves under these names. It also answers one prompt; with `texts_only` it
    begins a text, and needs no Yes and No.

    Raises EngineUnavailable, EngineOverloaded or EngineTimeout if it gives no answer,
    ModelUnusable and ArtifactMismatch if it has other models, AnswerTokenMissing if they have
    no Yes and No, AdapterRefused if it loads no adapters.
    """
    wanted = adapter.identity if isinstance(adapter, RuntimeAdapter) else None
    try:
        async with asyncio.timeout(within_seconds):
            served = await read_models(http)
            if isinstance(adapter, RuntimeAdapter):
                served, adapter = await _load_adapter(http, served, adapter)
            # Off the loop: without labels it reads checkpoint folders.
            weights = await asyncio.to_thread(served.choose, model, adapter)
            bare, full = [
                await http.ask(
                    tokens_request(
                        weights.scorer, PROBES[None], adds_special_tokens=adds, by_writer=texts_only
                    )
                )
                for adds in (False, True)
            ]
            adds = adds_special_tokens(full, bare)
            if texts_only:
                answers = None
                await _begin_text(http, weights, adds_special_tokens=adds)
            else:
                answers = await _find_answers(http, weights, adds_special_tokens=adds)
            weights = weights.encoded(adds_special_tokens=adds)
    except AttemptFailed as failure:
        raise failure.error from failure
    except EngineRefused as error:
        remedy = "start vLLM 0.32 or newer there, with room for a prompt in --max-model-len"
        raise ModelUnusable(f"{error}; {remedy}") from error
    except TimeoutError as error:
        raise EngineTimeout(
            f"{http.url} accepts connections and does not answer; restart the server there"
        ) from error
    if wanted not in (None, weights.identity):
        raise ArtifactMismatch(
            f"{http.url} serves {weights.identity} as {adapter!r}, here lies {wanted}; let "
            "both see the same folder, and never write other weights into one that is in use"
        )
    return VerifiedServer(weights, answers, adds, served.describe(weights))


async def _begin_text(http: ServerHttp, weights: Weights, *, adds_special_tokens: bool) -> None:
    limits = GenerationLimits(max_new_tokens=1)
    request = text_request(
        weights.model,
        PROBES[None],
        limits,
        adds_special_tokens=adds_special_tokens,
        by_writer=True,
    )
    await http.ask(request)


async def _find_answers(
    http: ServerHttp, weights: Weights, *, adds_special_tokens: bool
) -> AnswerTokens:
    """The tokens of Yes and No, for which one score is asked."""
    tokens = {
        word: await http.ask(
            tokens_request(weights.scorer, prompt, adds_special_tokens=adds_special_tokens)
        )
        for word, prompt in PROBES.items()
    }
    answers = find_answer_tokens(tokens.__getitem__)
    await http.ask(
        score_request(
            weights.scorer, PROBES[None], answers, adds_special_tokens=adds_special_tokens
        )
    )
    return answers


async def read_models(http: ServerHttp) -> ModelList:
    """What the server lists now."""
    return ModelList(http.url, await http.request_json("GET", "/v1/models"))


async def _load_adapter(
    http: ServerHttp, served: ModelList, adapter: RuntimeAdapter
) -> tuple[ModelList, str]:
    """What the server lists once it has the adapter, and the adapter's name there."""
    if (name := served.name_of(adapter.identity.adapter)) is not None:
        return served, name
    if adapter.name in served.adapters:
        return served, adapter.name
    command = {"lora_name": adapter.name, "lora_path": adapter.folder}
    done, message = await http.post_command(LOAD_ADAPTER, command)
    served = await read_models(http)
    # Another process may have loaded it at the same moment, so the list decides.
    if adapter.name in served.adapters:
        return served, adapter.name
    if NO_SUCH_ROUTE in message:
        # API clients see this message: no server addresses.
        raise AdapterRefused(
            "a model server loads no adapters while it runs; start all of them with `msr "
            "serve-model --load-adapters-from FOLDER`, or with this adapter by --adapter"
        )
    problem = "lists none of that name" if done else message[:300]
    raise ModelUnusable(f"{http.url} did not load the adapter {adapter.name}: {problem}")
