"""Prompts as vLLM's HTTP API takes them, and its answers as we take them.

An image travels as base64 under its item's id and version (`uuid`). For a server that still holds
the image the id is enough: that saves encoding it here, and decoding and hashing it there.
"""

import base64
import json
import math
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from services.core.errors import AnswerTokenMissing
from services.core.prompts import GenerationLimits, ItemImage, Message, Messages
from services.core.scoring import AnswerLogprobs, AnswerTokens
from services.engines import token_usage
from services.engines.contract import GeneratedText
from services.engines.text_processor import TEMPLATE_ARGUMENTS

COMPLETIONS = "/v1/chat/completions"
TOKENIZE = "/tokenize"
# The parameters that vLLM blames for a prompt that is too long, over HTTP and in process.
TOO_LONG_PARAMETERS = ("input_tokens", "input_text")
# vLLM computes waiting prompts of lower priority values first: a user waits for a score, none for a
# text. vLLM 0.32 ignores the value without `--scheduling-policy priority`.
SCORE_PRIORITY = 0
TEXT_PRIORITY = 1

T = TypeVar("T")


class InvalidResponse(Exception):
    """A response that is no answer. The server is at fault, not the prompt."""


@dataclass(frozen=True, slots=True)
class ChatRequest(Generic[T]):
    """A prompt and the question about it: the route, the options and how to read the response.

    `read` raises InvalidResponse for anything else than an answer. Requests have no side effects,
    so each can be sent twice. `may_be_hedged` marks those that are cheap enough to send to a second
    server when the first is late.
    """

    path: str
    messages: Messages
    options: dict[str, Any]
    read: Callable[[Any], T]
    max_new_tokens: int = 0
    may_be_hedged: bool = False

    @property
    def image_ids(self) -> list[str]:
        """The ids under which servers cache the prompt's images."""
        images = [message.image for message in self.messages]
        return [image_id(image) for image in images if image is not None]

    def body(self, held: Container[str]) -> bytes:
        """JSON, without the data of images whose ids are in `held`."""
        return json.dumps({"messages": turns(self.messages, held), **self.options}).encode()


def turns(messages: Messages, held: Container[str] = ()) -> list[dict[str, Any]]:
    """Messages in the form of OpenAI's API, without the data of images whose ids are in `held`."""
    return [{"role": message.role, "content": _parts(message, held)} for message in messages]


def text_request(
    model: str,
    messages: Messages,
    limits: GenerationLimits,
    *,
    adds_special_tokens: bool,
    by_writer: bool = False,
) -> ChatRequest[str]:
    """A request for a text; `by_writer`: of a model that may think first, and is told not to."""
    options = {
        "model": model,
        "add_special_tokens": adds_special_tokens,
        **_template_options(by_writer),
        **sampling_options(limits),
        "max_tokens": limits.max_new_tokens,
        "priority": TEXT_PRIORITY,
    }
    return ChatRequest(COMPLETIONS, messages, options, _read_text, limits.max_new_tokens)


def sampling_options(limits: GenerationLimits) -> dict[str, float]:
    """VLLM's options for how the tokens are chosen."""
    if limits.sampling is None:
        return {"temperature": 0}
    sampling = limits.sampling
    return {
        "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": limits.seed,
    }  # fmt: skip


def score_request(
    model: str, messages: Messages, answers: AnswerTokens, *, adds_special_tokens: bool
) -> ChatRequest[AnswerLogprobs]:
    """A request for one token, with the log-probabilities of the two answer tokens only.

    `logprob_token_ids` returns them raw in every logprobs mode of the server. A vLLM that does not
    know this option returns the two best of the allowed tokens if it runs with `--logprobs-mode
    processed_logprobs`; these are normalized over the two tokens, so their margin is the same.
    """
    options = {
        "model": model,
        "add_special_tokens": adds_special_tokens,
        "temperature": 0,
        "max_tokens": 1,
        "priority": SCORE_PRIORITY,
        "logprobs": True,
        "logprob_token_ids": [answers.yes, answers.no],
        "allowed_token_ids": [answers.yes, answers.no],
        "top_logprobs": 2,
        "return_tokens_as_token_ids": True,
    }

    def read(answer: Any) -> AnswerLogprobs:
        return _read_logprobs(answer, answers)

    return ChatRequest(COMPLETIONS, messages, options, read, max_new_tokens=1, may_be_hedged=True)


def tokens_request(
    model: str, messages: Messages, *, adds_special_tokens: bool, by_writer: bool = False
) -> ChatRequest[list[int]]:
    """A request for the prompt's token ids, those of its images included.

    An answered prompt ends with its answer; any other ends where the model's answer would begin.
    """
    options = {
        "model": model,
        "add_generation_prompt": messages[-1].role == "user",
        "add_special_tokens": adds_special_tokens,
        **_template_options(by_writer),
    }
    return ChatRequest(TOKENIZE, messages, options, _read_tokens)


def _template_options(by_writer: bool) -> dict[str, Any]:
    return {"chat_template_kwargs": TEMPLATE_ARGUMENTS} if by_writer else {}


def image_id(image: ItemImage) -> str:
    """The id under which a server caches an image and all that it computes from it."""
    return f"{image.item_id}:{image.version}"


def _parts(message: Message, held: Container[str]) -> list[dict[str, Any]] | str:
    if message.image is None:
        return message.text
    uuid = image_id(message.image)
    image = None
    if uuid not in held:
        encoded = base64.b64encode(message.image.data).decode()
        image = {"url": f"data:image/jpeg;base64,{encoded}"}
    return [
        {"type": "image_url", "image_url": image, "uuid": uuid},
        {"type": "text", "text": message.text},
    ]


def _read_text(answer: Any) -> str:
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise InvalidResponse(f"an answer without a text ({error!r})") from error
    if not isinstance(text, str | None):
        raise InvalidResponse(f"a text that is {type(text).__name__}")
    token_usage.record_response(answer)
    is_cut = answer["choices"][0].get("finish_reason") == "length"
    return GeneratedText((text or "").strip(), hit_limit=is_cut)


def _read_logprobs(answer: Any, answers: AnswerTokens) -> AnswerLogprobs:
    try:
        position = answer["choices"][0]["logprobs"]["content"][0]
        logprob_of = {entry["token"]: entry["logprob"] for entry in position["top_logprobs"]}
    except (KeyError, IndexError, TypeError) as error:
        raise InvalidResponse(f"an answer without log-probabilities ({error!r})") from error
    found: list[float] = []
    for token in (answers.yes, answers.no):
        logprob = logprob_of.get(f"token_id:{token}", "missing")
        if logprob == "missing":
            raise AnswerTokenMissing(
                f"the log-probabilities are of {sorted(logprob_of)}, without 'token_id:{token}'; "
                "the server must support logprob_token_ids (vLLM 0.32) or run with "
                "`--logprobs-mode processed_logprobs`"
            )
        if not isinstance(logprob, float | int) or not math.isfinite(logprob):
            raise InvalidResponse(f"the log-probability {logprob!r} for token {token}")
        found.append(float(logprob))
    token_usage.record_response(answer)
    return AnswerLogprobs(yes=found[0], no=found[1])


def _read_tokens(answer: Any) -> list[int]:
    try:
        return [int(token) for token in answer["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidResponse(f"an answer without tokens ({error!r})") from error
