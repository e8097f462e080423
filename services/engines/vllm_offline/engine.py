"""The `vllm-in-process` engine: vLLM inside this process, for batch work where no server runs.

One thread prepares prompts. Another owns vLLM and advances all running prompts token by token. So
no prompt waits for the longest answer of a batch, the model computes while images are decoded, and
a prompt that cannot be taken fails before it joins others.
"""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from services.core.errors import EngineError, EngineUnavailable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.checkpoints import identify, is_merged, only_scores, require_matching
from services.engines.contract import EngineIdentity, EngineOptions
from services.engines.vllm_offline.core import PreparedPrompt, VllmCore

log = structlog.get_logger(__name__)


async def open_engine(options: EngineOptions) -> "VllmOfflineEngine":
    """See `open_engine.open_engine`."""
    require_matching(options.model, options.adapter)
    return VllmOfflineEngine.load(options.model, options.adapter, texts_only=options.texts_only)


@dataclass(eq=False, slots=True)
class _Job:
    """A prepared prompt on its way through vLLM."""

    prompt: PreparedPrompt
    answer: "Future[Any]" = field(default_factory=Future)

    def end(self, answer: Any) -> None:
        if not self.answer.set_running_or_notify_cancel():
            return
        if isinstance(answer, EngineError):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class VllmOfflineEngine:
    """Implements `contract.Engine`. Open it with `load`, close it with `close`."""

    def __init__(
        self, open_core: Callable[[], VllmCore], identity: EngineIdentity, *, merged: bool = False
    ) -> None:
        """Wait until `open_core`, called in the thread that will own the core, has loaded it.

        A `merged` model only scores. Raises what `open_core` raises.
        """
        self.identity = identity
        self.num_shortened = 0
        self._merged = merged
        self._numbers = itertools.count()
        self._arrived: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closed: EngineUnavailable | None = None
        opened: Future[VllmCore] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(open_core, opened), name="in-process-engine", daemon=True
        )
        self._thread.start()
        self._core = opened.result()
        self._preparing = ThreadPoolExecutor(1, "in-process-engine-prompts")
        # Further prompts wait with undecoded images.
        self._room = asyncio.Semaphore(self._core.max_in_hand)

    @classmethod
    def load(
        cls, model: str, adapter: str | None = None, *, texts_only: bool = False
    ) -> "VllmOfflineEngine":
        """Load a checkpoint (folder, merged or not, or hub name) and an adapter folder.

        float32 on a CPU, bfloat16 on a GPU. Raises what `VllmCore` raises.
        """
        identity = identify(model, adapter)
        engine = cls(
            lambda: VllmCore(model, adapter, texts_only=texts_only),
            identity,
            merged=is_merged(model),
        )
        log.info("model_loaded", model=identity.model, adapter=identity.adapter, engine="vllm")
        return engine

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        if self._merged:
            raise only_scores(self.identity.adapter)
        text: str = await self._submit(messages, limits)
        return text

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        answer: AnswerLogprobs = await self._submit(messages, None)
        return answer

    async def close(self) -> None:
        """End the threads after what they work on, and vLLM with them."""
        self._stop(EngineUnavailable("the engine is closed"))
        await asyncio.to_thread(self._thread.join)
        self._preparing.shutdown()

    async def _submit(self, messages: Messages, limits: GenerationLimits | None) -> Any:
        async with self._room:
            if self._closed:
                raise self._closed
            loop = asyncio.get_running_loop()
            prompt = await loop.run_in_executor(
                self._preparing, self._core.prepare, messages, limits
            )
            self.num_shortened += prompt.was_shortened
            job = _Job(prompt)
            with self._wake:
                if self._closed:
                    raise self._closed
                self._arrived.append(job)
                self._wake.notify()
            # A caller that stops waiting cancels the future, and the thread then drops the job.
            return await asyncio.wrap_future(job.answer)

    def _stop(self, reason: EngineUnavailable) -> None:
        with self._wake:
            self._closed = self._closed or reason
            self._wake.notify()

    # --- in the thread that owns vLLM ------------------------------------------------------------

    def _run(self, open_core: Callable[[], VllmCore], opened: "Future[VllmCore]") -> None:
        try:
            core = open_core()
        except BaseException as error:  # for the thread that waits
            opened.set_exception(error)
            return
        opened.set_result(core)
        in_hand: dict[str, _Job] = {}
        try:
            while self._wait_for_work(in_hand):
                self._take_arrived(core, in_hand)
                for number, answer in core.step():
                    in_hand.pop(number).end(answer)
        except Exception as error:  # after a failed step vLLM's state cannot be trusted
            log.exception("vllm_failed")
            self._stop(
                EngineUnavailable(
                    f"vLLM failed ({type(error).__name__}: {error}); what is finished is kept: "
                    "run the step again, with more memory if that was short"
                )
            )
        core.shutdown()
        for job in (*in_hand.values(), *self._arrived):
            job.end(self._closed)

    def _wait_for_work(self, in_hand: dict[str, _Job]) -> bool:
        """False once closed."""
        with self._wake:
            self._wake.wait_for(lambda: in_hand or self._arrived or self._closed)
            return self._closed is None

    def _take_arrived(self, core: VllmCore, in_hand: dict[str, _Job]) -> None:
        """Pass new prompts to vLLM and drop cancelled ones."""
        while self._arrived:
            job = self._arrived.popleft()
            number = str(next(self._numbers))
            try:
                core.add(number, job.prompt)
            except EngineError as error:
                job.end(error)
            else:
                in_hand[number] = job
        abandoned = [number for number, job in in_hand.items() if job.answer.cancelled()]
        core.abort(abandoned)
        for number in abandoned:
            del in_hand[number]
