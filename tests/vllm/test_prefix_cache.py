"""The item comes first in a prompt, so what vLLM computed for one user serves all others."""

from itertools import takewhile
from typing import Any

import httpx
import pytest

from services.core.prompts import Messages
from services.engines.vllm_client.chat_requests import COMPLETIONS, TOKENIZE, tokens_request, turns
from services.engines.vllm_server.command import CPU_BLOCK_SIZE

pytestmark = pytest.mark.vllm

NUM_TASTES = 5  # of each item in `scoring_prompts`


def post(server: str, path: str, prompt: Messages, **options: Any) -> Any:
    body = {"messages": turns(prompt), **options}
    return httpx.post(server + path, json=body, timeout=300).raise_for_status().json()


def tokens(server: str, prompt: Messages) -> list[int]:
    """Token ids of a prompt, those of its image included."""
    request = tokens_request("demo", prompt, adds_special_tokens=False)
    answer = post(server, TOKENIZE, prompt, **request.options)
    return list(answer["tokens"])


def num_cached(server: str, prompt: Messages) -> int:
    """How many of the prompt's tokens the server did not compute anew."""
    answer = post(server, COMPLETIONS, prompt, model="demo", max_tokens=1)
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_every_whole_block_of_a_warm_item_is_reused_for_the_next_user(
    model_server: str, scoring_prompts: list[Messages]
):
    by_user = [scoring_prompts[taste::NUM_TASTES] for taste in range(NUM_TASTES)]
    for first, second in zip(by_user[0], by_user[1], strict=True):
        num_cached(model_server, first)
        pairs = zip(tokens(model_server, first), tokens(model_server, second), strict=False)
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

        assert num_shared > CPU_BLOCK_SIZE
        assert num_cached(model_server, second) >= num_shared // CPU_BLOCK_SIZE * CPU_BLOCK_SIZE


def test_a_repeated_prompt_computes_less_than_a_block(
    model_server: str, scoring_prompts: list[Messages]
):
    prompt = scoring_prompts[0]
    num_cached(model_server, prompt)

    left = len(tokens(model_server, prompt)) - num_cached(model_server, prompt)
    assert left <= CPU_BLOCK_SIZE
