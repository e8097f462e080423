"""The `local` engine: transformers and peft in this process, on the CPU or one GPU.

One thread owns the model. Prompts wait in a bounded queue. Whenever the model is free, the thread
takes the waiting prompts as one batch: scores before texts, because a user waits for a score while
a preference is written in the background. The event loop never blocks: torch releases the
interpreter while it computes.

A batch belongs to one adapter, and only the thread switches adapters, so a prompt never meets
another adapter's weights.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import structlog
import torch

from services.core.errors import (
    AdapterRefused,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
)
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines import token_usage
from services.engines.checkpoints import (
    identify_servable,
    is_merged,
    only_scores,
    require_matching,
)
from services.engines.contract import EngineIdentity, EngineOptions, Scorer
from services.engines.local.model import LocalModel
from services.engines.prompt_encoding import EncodedPrompt

log = structlog.get_logger(__name__)

MAX_WAITING = 8192
MAX_BATCH = 32
# Bounds a batch's memory: 24 prompts with one 336 x 336 image each on a 7B model.
MAX_BATCH_TOKENS = 32_768
MAX_SCORE_RUN = 4


async def open_engine(options: EngineOptions) -> "LocalEngine":
    """See `open_engine.open_engine`."""
    require_matching(options.model, options.adapter)
    return LocalEngine.load(options.model, options.adapter, texts_only=options.texts_only)


@dataclass(eq=False, slots=True)
class _Job:
    """A prompt on its way through the engine; `limits` is None for a score, by this `adapter`."""

    messages: Messages
    limits: GenerationLimits | None
    adapter: str = ""
    answer: "Future[Any]" = field(default_factory=Future)
    encoded: EncodedPrompt | None = None
    num_generated: int = 1

    @property
    def max_new_tokens(self) -> int:
        return 1 if self.limits is None else self.limits.max_new_tokens

    @property
    def kind(self) -> tuple[object, ...]:
        """Jobs of one kind can run as one batch."""
        assert self.encoded is not None
        # Each row has a seed of its own.
        limits = self.limits and replace(self.limits, seed=0)
        return limits, self.adapter, self.encoded.image_shapes


@dataclass(frozen=True, slots=True)
class _LoadedAdapter:
    """Implements `contract.Scorer`: one of the adapters on an engine's base model."""

    engine: "LocalEngine"
    identity: EngineIdentity

    async def score(self, messages: Messages) -> AnswerLogprobs:
        return await self.engine._score_by(self.identity.adapter, messages)


class LocalEngine:
    """Implements `contract.Engine` and `AdapterHost`.

    Open it with `LocalEngine.load`, close it with `close`.
    """

    def __init__(
        self,
        model: LocalModel,
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        merged: bool = False,
    ) -> None:
        """A `merged` model only scores."""
        self.identity = model.identity
        self.num_shortened = 0
        self._model = model
        self._merged = merged
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._scores: deque[_Job] = deque()
        self._generations: deque[_Job] = deque()
        # Work on the model other than prompts, and who waits for it.
        self._control_tasks: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._wake = threading.Condition()
        self._score_run = 0
        self._closed = False
        self._num_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="local-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        model: str,
        adapter: str | None = None,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        texts_only: bool = False,
    ) -> "LocalEngine":
        """Load a checkpoint (folder, merged or not, or hub name) and an adapter folder.

        Raises ModelUnusable with what is wrong and where, AnswerTokenMissing if the chat template
        has no one-token Yes and No. With `texts_only` it needs none, and may take no images.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = LocalModel.load(model, adapter, device=device, texts_only=texts_only)
        identity = loaded.identity
        log.info("model_loaded", model=identity.model, adapter=identity.adapter, device=device)
        return cls(loaded, merged=is_merged(model))

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        if self._merged:
            raise only_scores(self.identity.adapter)
        text: str = await self._submit(self._generations, _Job(messages, limits))
        return text

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        return await self._score_by(self.identity.adapter, messages)

    async def load_adapter(self, folder: str) -> Scorer:
        """See `contract.AdapterHost`. Prompts wait while its file is read."""
        if self._merged:
            raise AdapterRefused(
                "the engine serves a merged checkpoint, which takes no adapter; start it on the "
                "base model to change adapters while it runs"
            )
        identity = await asyncio.to_thread(identify_servable, folder, model=self.identity.model)
        await self._run_control_task(lambda: self._model.attach_adapter(identity.adapter, folder))
        log.info("adapter_loaded", model=identity.model, adapter=identity.adapter)
        return _LoadedAdapter(self, identity)

    async def unload_adapter(self, scorer: Scorer) -> None:
        """See `contract.AdapterHost`."""
        adapter = scorer.identity.adapter
        if adapter != self.identity.adapter:
            await self._run_control_task(lambda: self._model.detach_adapter(adapter))
            log.info("adapter_unloaded", adapter=adapter)

    async def close(self) -> None:
        """End the thread after the batch it works on."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    async def _score_by(self, adapter: str, messages: Messages) -> AnswerLogprobs:
        job = _Job(messages, None, adapter)
        answer: AnswerLogprobs = await self._submit(self._scores, job)
        return answer

    async def _run_control_task(self, work: Callable[[], None]) -> None:
        done: Future[None] = Future()
        with self._wake:
            if self._closed:
                raise EngineUnavailable("the engine is closed")
            self._control_tasks.append((work, done))
            self._wake.notify()
        await asyncio.wrap_future(done)

    async def _submit(self, queue: deque[_Job], job: _Job) -> Any:
        with self._wake:
            if self._closed:
                raise EngineUnavailable("the engine is closed")
            if len(self._scores) + len(self._generations) >= self._max_waiting:
                raise EngineOverloaded(
                    f"{self._max_waiting} prompts are waiting already; try again later"
                )
            queue.append(job)
            self._wake.notify()
        # A caller that stops waiting cancels the future, and the thread then skips the job.
        answer = await asyncio.wrap_future(job.answer)
        assert job.encoded is not None
        token_usage.record(job.encoded.num_tokens, 0, job.num_generated)
        return answer

    # --- in the engine's thread ------------------------------------------------------------------

    def _run(self) -> None:
        # Without this, torch's first call here would use the count that the process has then.
        torch.set_num_threads(self._num_threads)
        while (batch := self._take_batch()) is not None:
            if batch:
                self._answer(batch)
        answers = [job.answer for job in (*self._scores, *self._generations)]
        for future in (*answers, *(done for _, done in self._control_tasks)):
            _fail(future, EngineUnavailable("the engine was closed"))

    def _take_batch(self) -> list[_Job] | None:
        """Wait for work; the next jobs that can run together, or None once closed."""
        with self._wake:
            while not (self._scores or self._generations or self._control_tasks or self._closed):
                self._wake.wait()
            if self._closed:
                return None
            control_tasks = [self._control_tasks.popleft() for _ in range(len(self._control_tasks))]
        for work, done in control_tasks:
            if done.set_running_or_notify_cancel():
                try:
                    done.set_result(work())
                except BaseException as error:  # for the caller that waits
                    done.set_exception(error)
        with self._wake:
            queue = self._next_queue()
            taken = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
        batch, later = _fill([job for job in taken if self._encode_job(job)], MAX_BATCH_TOKENS)
        with self._wake:
            queue.extendleft(reversed(later))
        return [job for job in batch if job.answer.set_running_or_notify_cancel()]

    def _next_queue(self) -> deque[_Job]:
        """Scores first, but after MAX_SCORE_RUN batches of scores one batch of texts."""
        if self._scores and (not self._generations or self._score_run < MAX_SCORE_RUN):
            self._score_run += 1
            return self._scores
        self._score_run = 0
        return self._generations

    def _encode_job(self, job: _Job) -> bool:
        """False if the job was cancelled or its prompt cannot be encoded."""
        if job.answer.cancelled():
            return False
        try:
            if job.encoded is None:
                job.encoded = self._model.encode_to_fit(job.messages, job.max_new_tokens)
                self.num_shortened += job.encoded.was_shortened
        except Exception as error:  # processors raise many kinds; the prompt is at fault
            _fail(job.answer, _refused(error))
            return False
        return True

    def _answer(self, batch: Sequence[_Job]) -> None:
        try:
            answers = self._forward(batch)
        except Exception as error:  # torch raises many kinds; all mean the same here
            if len(batch) > 1:  # one prompt must not fail the others of its batch
                for job in batch:
                    self._answer([job])
            else:
                batch[0].answer.set_exception(_refused(error))
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)

    def _forward(self, batch: Sequence[_Job]) -> list[Any]:
        encoded = [job.encoded for job in batch if job.encoded is not None]
        limits, adapter = batch[0].limits, batch[0].adapter
        if limits is None:
            return list(self._model.score(encoded, adapter))
        seeds = [job.limits.seed for job in batch if job.limits is not None]
        written = self._model.generate(encoded, limits, seeds)
        for job, (_, num_tokens) in zip(batch, written, strict=True):
            job.num_generated = num_tokens
        return [text for text, _ in written]


def _fill(jobs: Sequence[_Job], max_tokens: int) -> tuple[list[_Job], list[_Job]]:
    """The encoded jobs that can run with the first one within the token budget, and the rest."""
    batch: list[_Job] = []
    later: list[_Job] = []
    width = 0
    for job in jobs:
        assert job.encoded is not None
        wider = max(width, job.encoded.num_tokens)
        if not batch or (job.kind == batch[0].kind and wider * (len(batch) + 1) <= max_tokens):
            batch.append(job)
            width = wider
        else:
            later.append(job)
    return batch, later


def _fail(future: "Future[Any]", error: EngineError) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _refused(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    refused = EngineRefused(
        f"the model could not take this prompt ({type(error).__name__}: {error})"
    )
    refused.__cause__ = error
    return refused
