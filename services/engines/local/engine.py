"""The `local` engine: transformers and peft in this process, on the CPU or one GPU.

One thread owns the model. Prompts wait in a bounded queue; whenever the model is free the thread
takes what waits and runs it as one batch, scores before generations, since somebody waits for a
score while a preference is written in the background. The event loop never blocks: torch releases
the interpreter while it computes.

Texts in a batch are padded on the left and masked; pictures are never padded: prompts whose
pictures have another shape go to another batch. So an answer does not depend on its batch-mates
beyond the last digits of float32 arithmetic (demo model: margins agree within 1e-5).

Several adapters lie on the one base model. A batch is of one of them, and only the thread switches
between them, before it runs the batch: what is in flight never meets another's weights.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor

from services.core.errors import (
    AdapterRefused,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines import token_usage
from services.engines.checkpoints import identify, identify_servable, is_merged, only_scores
from services.engines.contract import EngineIdentity, Scorer
from services.engines.prompt_fitting import shorten_to_fit
from services.engines.rendering import answer_tokens, chat_content, pictures, render

log = structlog.get_logger(__name__)

MAX_WAITING = 8192
MAX_BATCH = 32
# Bounds a batch's memory: 24 prompts with one 336 x 336 picture each on a 7B model.
MAX_BATCH_TOKENS = 32_768
MAX_SCORE_RUN = 4

_CANNOT_LOAD = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """One prompt as the model takes it: ids (T,); pixels (1, P, 3, H, W) and sizes (1, 2)."""

    ids: torch.Tensor
    pixels: torch.Tensor | None
    sizes: torch.Tensor | None

    @property
    def num_tokens(self) -> int:
        return int(self.ids.shape[0])

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        return () if self.pixels is None else tuple(self.pixels.shape)


@dataclass(eq=False, slots=True)
class _Job:
    """A prompt on its way through the engine; `limits` is None for a score, by this `adapter`."""

    messages: Messages
    limits: GenerationLimits | None
    adapter: str = ""
    answer: "Future[Any]" = field(default_factory=Future)
    encoded: _Encoded | None = None
    num_generated: int = 1

    @property
    def max_new_tokens(self) -> int:
        return 1 if self.limits is None else self.limits.max_new_tokens

    def fits_with(self, other: "_Job") -> bool:
        assert self.encoded is not None
        assert other.encoded is not None
        return (self.limits, self.adapter, self.encoded.pixel_shape) == (
            other.limits,
            other.adapter,
            other.encoded.pixel_shape,
        )


@dataclass(eq=False, slots=True)
class ControlTask:
    """Something else that only the engine's thread may do to the model."""

    work: Callable[[], None]
    done: "Future[None]" = field(default_factory=Future)

    def run(self) -> None:
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            self.work()
        except BaseException as error:  # for the caller that waits
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class _LoadedAdapter:
    """Implements `contract.Scorer`: one of the adapters on an engine's base model."""

    engine: "LocalEngine"
    identity: EngineIdentity

    async def score(self, messages: Messages) -> AnswerLogprobs:
        return await self.engine._score_by(self.identity.adapter, messages)


class LocalEngine:
    """Implements `contract.Engine` and `AdapterHost`. Open it with `LocalEngine.load`, close it
    with `close`.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        identity: EngineIdentity,
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        merged: bool = False,
    ) -> None:
        """`model` is a transformers model or a PeftModel around one, `processor` its processor.

        A `merged` model only scores. Raises AnswerTokenMissing if the chat template has no
        one-token Yes and No.
        """
        self._model = model.eval()
        self._processor = processor
        self._identity = identity
        self._merged = merged
        # What PEFT calls the adapters of these fingerprints; None is the base model alone.
        own_name = model.active_adapter if isinstance(model, PeftModel) else None
        self._peft_names: dict[str, str | None] = {identity.adapter: own_name}
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._answers = answer_tokens(processor)
        self._pad_id = int(processor.tokenizer.pad_token_id)
        text_config = model.config.get_text_config()
        self._max_tokens = int(text_config.max_position_embeddings)
        self._scores: deque[_Job] = deque()
        self._generations: deque[_Job] = deque()
        self._control_tasks: deque[ControlTask] = deque()
        self._wake = threading.Condition()
        self._score_run = 0
        self._num_shortened = 0
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
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
    ) -> "LocalEngine":
        """Load a checkpoint (folder, merged or not, or hub name) and an adapter folder.

        float32 on a CPU, bfloat16 on a GPU. Raises ModelUnusable with what is wrong and where.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        try:
            processor = AutoProcessor.from_pretrained(model)
            loaded = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnusable(
                f"cannot load the model {model!r} ({error}); give --model a checkpoint folder or a "
                "hub name that this machine can reach"
            ) from error
        processor.tokenizer.padding_side = "left"
        if adapter is not None:
            loaded = _with_adapter(loaded, adapter)
        identity = identify(model, adapter)
        loaded = loaded.to(device)
        log.info("model_loaded", model=identity.model, adapter=identity.adapter, device=device)
        return cls(
            loaded,
            processor,
            identity,
            max_batch=max_batch,
            max_waiting=max_waiting,
            merged=is_merged(model),
        )

    @property
    def identity(self) -> EngineIdentity:
        """Fingerprints of the loaded weights."""
        return self._identity

    @property
    def num_shortened(self) -> int:
        """See `contract.Engine.num_shortened`."""
        return self._num_shortened

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        if self._merged:
            raise only_scores(self._identity.adapter)
        text: str = await self._submit(self._generations, _Job(messages, limits))
        return text

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        return await self._score_by(self._identity.adapter, messages)

    async def load_adapter(self, folder: str) -> Scorer:
        """See `contract.AdapterHost`. Prompts wait while its file is read."""
        if self._merged:
            raise AdapterRefused(
                "the engine serves a merged checkpoint, which takes no adapter; start it on the "
                "base model to change adapters while it runs"
            )
        identity = await asyncio.to_thread(identify_servable, folder, model=self._identity.model)
        await self._run_control_task(lambda: self._attach_adapter(identity.adapter, folder))
        log.info("adapter_loaded", model=identity.model, adapter=identity.adapter)
        return _LoadedAdapter(self, identity)

    async def unload_adapter(self, scorer: Scorer) -> None:
        """See `contract.AdapterHost`."""
        adapter = scorer.identity.adapter
        if adapter != self._identity.adapter:
            await self._run_control_task(lambda: self._detach_adapter(adapter))
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
        control_task = ControlTask(work)
        with self._wake:
            if self._closed:
                raise EngineUnavailable("the engine is closed")
            self._control_tasks.append(control_task)
            self._wake.notify()
        await asyncio.wrap_future(control_task.done)

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
        # Else the first call of torch would take what the process happens to have then.
        torch.set_num_threads(self._num_threads)
        while (batch := self._take_batch()) is not None:
            if batch:
                self._answer(batch)
        for job in (*self._scores, *self._generations):
            if job.answer.set_running_or_notify_cancel():
                job.answer.set_exception(EngineUnavailable("the engine was closed"))
        for control_task in self._control_tasks:
            if control_task.done.set_running_or_notify_cancel():
                control_task.done.set_exception(EngineUnavailable("the engine was closed"))

    def _take_batch(self) -> list[_Job] | None:
        """Wait for work; the next jobs that can run together, or None once closed."""
        with self._wake:
            while not (self._scores or self._generations or self._control_tasks or self._closed):
                self._wake.wait()
            if self._closed:
                return None
            control_tasks = [self._control_tasks.popleft() for _ in range(len(self._control_tasks))]
        for control_task in control_tasks:
            control_task.run()
        with self._wake:
            queue = self._next_queue()
            taken = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
        batch, later = _fill([job for job in taken if self._encode_job(job)], MAX_BATCH_TOKENS)
        with self._wake:
            queue.extendleft(reversed(later))
        return [job for job in batch if job.answer.set_running_or_notify_cancel()]

    def _next_queue(self) -> deque[_Job]:
        """Scores first, but not for ever: a generation's turn comes after MAX_SCORE_RUN batches."""
        if self._scores and (not self._generations or self._score_run < MAX_SCORE_RUN):
            self._score_run += 1
            return self._scores
        self._score_run = 0
        return self._generations

    def _encode_job(self, job: _Job) -> bool:
        """False if nobody waits for the job any more or its prompt cannot be encoded."""
        if job.answer.cancelled():
            return False
        try:
            job.encoded = job.encoded or self._encode_to_fit(job)
        except Exception as error:  # whatever a processor raises, this prompt is at fault
            if job.answer.set_running_or_notify_cancel():
                job.answer.set_exception(_refused(error))
            return False
        return True

    def _answer(self, batch: Sequence[_Job]) -> None:
        try:
            answers = self._forward(batch)
        except Exception as error:  # torch raises many kinds; all mean the same here
            if len(batch) > 1:  # one prompt must not spoil its batch-mates
                for job in batch:
                    self._answer([job])
            else:
                batch[0].answer.set_exception(_refused(error))
            return
        for job, answer in zip(batch, answers, strict=True):
            job.answer.set_result(answer)

    def _forward(self, batch: Sequence[_Job]) -> list[Any]:
        inputs = self._collate([job.encoded for job in batch if job.encoded is not None])
        limits, adapter = batch[0].limits, batch[0].adapter
        with torch.inference_mode():
            if limits is None:
                with self._using_adapter(adapter):
                    return self._score_batch(inputs)
            written = self._generate_batch(inputs, limits)
        for job, ids in zip(batch, written, strict=True):
            job.num_generated = int((ids != self._pad_id).sum())
        texts = self._processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _score_batch(self, inputs: dict[str, torch.Tensor]) -> list[AnswerLogprobs]:
        logits = self._model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]  # (B, V)
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        answers = logprobs[:, [self._answers.yes, self._answers.no]].tolist()
        return [AnswerLogprobs(yes=yes, no=no) for yes, no in answers]

    def _generate_batch(
        self, inputs: dict[str, torch.Tensor], limits: GenerationLimits
    ) -> torch.Tensor:
        """The ids written (B, T), padded on the right."""
        # Summaries and preferences are the base model's: the adapter only answers Yes or No.
        with self._base_only():
            output = self._model.generate(
                **inputs,
                max_new_tokens=limits.max_new_tokens,
                do_sample=False,
                pad_token_id=self._pad_id,
            )
        return output[:, inputs["input_ids"].shape[1] :]

    # --- adapters, in the engine's thread too ----------------------------------------------------

    def _using_adapter(self, adapter: str) -> AbstractContextManager[Any]:
        """Within it the model is the base with this adapter."""
        if adapter not in self._peft_names:
            raise EngineUnavailable(f"the adapter {adapter} was unloaded")
        name = self._peft_names[adapter]
        if name is None:
            return self._base_only()
        if self._model.active_adapter != name:
            self._model.set_adapter(name, inference_mode=True)
        return nullcontext()

    def _base_only(self) -> AbstractContextManager[Any]:
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        alone: AbstractContextManager[Any] = self._model.disable_adapter()
        return alone

    def _attach_adapter(self, adapter: str, folder: str) -> None:
        if adapter in self._peft_names:
            return
        # The fingerprint is hexadecimal, so it can be the name of a module.
        try:
            self._add_adapter(adapter, folder)
        except _CANNOT_LOAD as error:
            raise _unusable(folder, error) from error
        self._peft_names[adapter] = adapter

    def _add_adapter(self, name: str, folder: str) -> None:
        """Put the adapter beside what is there; a failure leaves the model as it was."""
        model, is_first = self._model, not isinstance(self._model, PeftModel)
        if is_first:
            model = PeftModel(model, PeftConfig.from_pretrained(folder), adapter_name=name)
        try:
            model.load_adapter(folder, name, torch_device=str(model.device))
        except BaseException:
            if is_first:
                model.unload()
            elif name in model.peft_config:
                model.delete_adapter(name)
            raise
        self._model = model.eval()

    def _detach_adapter(self, adapter: str) -> None:
        name = self._peft_names.pop(adapter, None)
        if name is None:
            return
        if self._model.active_adapter == name and len(self._model.peft_config) > 1:
            other = next(each for each in self._model.peft_config if each != name)
            self._model.set_adapter(other, inference_mode=True)
        if len(self._model.peft_config) > 1:
            self._model.delete_adapter(name)
        else:  # the last one; the base model is what is left
            self._model = self._model.unload()

    # --- prompts to tensors ----------------------------------------------------------------------

    def _encode_to_fit(self, job: _Job) -> _Encoded:
        room = self._max_tokens - job.max_new_tokens
        encoded = self._encode(job.messages)
        if encoded.num_tokens <= room:
            return encoded
        shorter = shorten_to_fit(
            job.messages, lambda messages: self._encode(messages).num_tokens <= room
        )
        if shorter is None:
            raise EngineRefused(
                f"the prompt has {encoded.num_tokens} tokens, the model takes {room}, and nothing "
                "of it can be cut; use a smaller picture"
            )
        self._num_shortened += 1
        return self._encode(shorter)

    def _encode(self, messages: Messages) -> _Encoded:
        # add_special_tokens=False: the template has written every special token already.
        encoded = self._processor(
            text=render(self._processor, chat_content(messages), answered=False),
            images=pictures(messages) or None,
            add_special_tokens=False,
            return_tensors="pt",
        )
        return _Encoded(
            encoded["input_ids"][0], encoded.get("pixel_values"), encoded.get("image_sizes")
        )

    def _collate(self, batch: Sequence[_Encoded]) -> dict[str, torch.Tensor]:
        width = max(encoded.num_tokens for encoded in batch)
        ids = torch.full((len(batch), width), self._pad_id, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, encoded in enumerate(batch):
            ids[row, width - encoded.num_tokens :] = encoded.ids
            mask[row, width - encoded.num_tokens :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        pixels = [encoded.pixels for encoded in batch if encoded.pixels is not None]
        sizes = [encoded.sizes for encoded in batch if encoded.sizes is not None]
        if pixels:
            inputs["pixel_values"] = torch.cat(pixels).to(self._model.dtype)
            inputs["image_sizes"] = torch.cat(sizes)
        return {name: tensor.to(self._model.device) for name, tensor in inputs.items()}


def _fill(jobs: Sequence[_Job], max_tokens: int) -> tuple[list[_Job], list[_Job]]:
    """The encoded jobs that can run with the first one within the token budget, and the rest."""
    batch: list[_Job] = []
    later: list[_Job] = []
    width = 0
    for job in jobs:
        assert job.encoded is not None
        wider = max(width, job.encoded.num_tokens)
        if not batch or (job.fits_with(batch[0]) and wider * (len(batch) + 1) <= max_tokens):
            batch.append(job)
            width = wider
        else:
            later.append(job)
    return batch, later


def _refused(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    refused = EngineRefused(
        f"the model could not take this prompt ({type(error).__name__}: {error})"
    )
    refused.__cause__ = error
    return refused


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        return PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except _CANNOT_LOAD as error:
        raise _unusable(adapter, error) from error


def _unusable(adapter: str, error: Exception) -> ModelUnusable:
    return ModelUnusable(
        f"cannot load the adapter {adapter!r} onto this model ({error}); give a folder, to "
        "--adapter or beside the others, that `msr train` wrote for the same base model"
    )
