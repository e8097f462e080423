"""A random model behind `msr serve-model`, an engine on it, and what the server counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.support.msr_process import serving_model
from benchmarks.support.runner import has_bfloat16
from services.core.prompts import GenerationLimits, Messages
from services.engines.contract import EngineOptions
from services.engines.vllm_client.engine import VllmEngine

MODEL_NAME = "random"
ADAPTER_NAME = "random-adapter"
TIMEOUT_SECONDS = 600.0
# Room for half a million tokens of the small model: what is to be warm is never pushed out. With
# half of it, warm items in float32 were pushed out in turn from 50 on, and each was computed again.
KV_CACHE_GB = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What a vLLM server has counted since it started."""

    prompt: int
    cached: int
    generated: int

    def since(self, earlier: "TokenCounts") -> "TokenCounts":
        """What came after an earlier look."""
        return TokenCounts(
            self.prompt - earlier.prompt,
            self.cached - earlier.cached,
            self.generated - earlier.generated,
        )

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens whose keys and values were cached."""
        return self.cached / self.prompt if self.prompt else 0.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A running model server and an engine on it."""

    url: str
    engine: VllmEngine

    async def count_tokens(self) -> TokenCounts:
        """The server's counters now."""
        async with httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_SECONDS) as http:
            return read_token_counts((await http.get("/metrics")).raise_for_status().text)

    @contextlib.asynccontextmanager
    async def writing(self, num_tokens: int) -> AsyncIterator[None]:
        """RuntimeError unless the server writes exactly this many tokens meanwhile."""
        before = await self.count_tokens()
        yield
        written = (await self.count_tokens()).since(before).generated
        if written != num_tokens:
            raise RuntimeError(f"the server wrote {written} tokens, not {num_tokens}")


@contextlib.asynccontextmanager
async def serve(
    model: Path, *, adapter: Path | None = None, dtype: str | None = None
) -> AsyncIterator[ServedModel]:
    """Serve a checkpoint, as the merged model that scores by itself or below an adapter.

    Without a `dtype` in bfloat16, or in float32 where the processor has no bfloat16.
    """
    if dtype is None:
        dtype = "bfloat16" if has_bfloat16() else "float32"
    arguments = ["--name", MODEL_NAME, "--dtype", dtype, "--kv-cache-gb", str(KV_CACHE_GB[dtype])]
    if adapter is not None:
        arguments += ["--adapter", f"{ADAPTER_NAME}={adapter}"]
    with serving_model(model, *arguments) as url:
        async with connected(url, adapter=None if adapter is None else ADAPTER_NAME) as served:
            yield served


@contextlib.asynccontextmanager
async def connected(url: str, *, adapter: str | None = None) -> AsyncIterator[ServedModel]:
    """An engine on a server that runs."""
    engine = await VllmEngine.connect(
        EngineOptions(MODEL_NAME, adapter, urls=[url], timeout_seconds=TIMEOUT_SECONDS)
    )
    try:
        yield ServedModel(url, engine)
    finally:
        await engine.close()


async def generate_all(
    model: ServedModel, prompts: Sequence[Messages], limits: GenerationLimits
) -> None:
    """Answer all prompts at once."""
    await asyncio.gather(*(model.engine.generate(prompt, limits) for prompt in prompts))


def read_token_counts(metrics: str) -> TokenCounts:
    """The counters from what `/metrics` answers; one that is not there counts 0."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return TokenCounts(
        prompt=int(totals.get("vllm:prompt_tokens_total", 0)),
        cached=int(totals.get("vllm:prompt_tokens_cached_total", 0)),
        generated=int(totals.get("vllm:generation_tokens_total", 0)),
    )
