"""A transformers model with its processor and its adapters: batches of prompts in, answers out.

Not thread-safe: the engine's thread owns it (`engine.py`).

Texts in a batch are padded on the left and masked. Images are never padded: all prompts of a batch
have images of one shape. So an answer depends on the rest of its batch only in the last digits of
float32 arithmetic (demo model: margins agree within 1e-5).

Several adapters share the base model. A batch is scored by one of them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LogitsProcessorList,
)

from services.core.errors import EngineRefused, EngineUnavailable, ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs, AnswerTokens
from services.engines.checkpoints import identify
from services.engines.contract import EngineIdentity, GeneratedText
from services.engines.local.sampling import SeededSampling
from services.engines.models.model_files import (
    context_length,
    damaged_weights,
    load_processor,
    takes_images,
)
from services.engines.prompt_encoding import EncodedPrompt, PromptEncoder
from services.engines.prompt_fitting import shorten_to_fit

_CANNOT_LOAD = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


class LocalModel:
    """Open it with `LocalModel.load`."""

    def __init__(
        self, model: Any, processor: Any, identity: EngineIdentity, *, texts_only: bool = False
    ) -> None:
        """`model` is a transformers model, or a PeftModel with the adapter of this identity.

        Raises AnswerTokenMissing if the chat template has no one-token Yes and No, unless the model
        writes `texts_only`.
        """
        self.identity = identity
        self._model = model.eval()
        self._processor = processor
        # PEFT's names of the adapters, by fingerprint; None is the base model alone.
        own_name = model.active_adapter if isinstance(model, PeftModel) else None
        self._peft_names: dict[str, str | None] = {identity.adapter: own_name}
        self._encoder = PromptEncoder(processor, texts_only=texts_only)
        self._max_tokens = context_length(model.config)

    @classmethod
    def load(
        cls,
        model: str,
        adapter: str | None,
        *,
        device: Literal["cpu", "cuda"],
        texts_only: bool = False,
    ) -> "LocalModel":
        """Load a checkpoint (folder, merged or not, or hub name) and an adapter folder.

        float32 on a CPU, bfloat16 on a GPU. Raises ModelUnusable with what is wrong and where.
        """
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        processor = load_processor(model, texts_only=texts_only)
        kind = AutoModelForImageTextToText if takes_images(model) else AutoModelForCausalLM
        try:
            loaded = kind.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnusable(
                f"cannot load the model {model!r} ({error}); give --model a checkpoint folder or a "
                "hub name that this machine can reach"
            ) from error
        except SafetensorError as error:
            raise damaged_weights(model, error) from error
        if adapter is not None:
            try:
                loaded = PeftModel.from_pretrained(loaded, adapter, is_trainable=False)
            except _CANNOT_LOAD as error:
                raise _unusable(adapter, error) from error
        identity = identify(model, adapter)
        return cls(loaded.to(device), processor, identity, texts_only=texts_only)

    @property
    def answers(self) -> AnswerTokens:
        """The tokens of Yes and No."""
        return self._encoder.answers

    def score(self, batch: Sequence[EncodedPrompt], adapter: str) -> list[AnswerLogprobs]:
        """Answers by the adapter of this fingerprint; EngineUnavailable if it is detached."""
        inputs = self._collate(batch)
        with torch.inference_mode(), self._using_adapter(adapter):
            logits = self._model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
            logprobs = torch.log_softmax(logits.float(), dim=-1)  # (B, V)
            answers = logprobs[:, [self.answers.yes, self.answers.no]].tolist()
        return [AnswerLogprobs(yes=yes, no=no) for yes, no in answers]

    def generate(
        self, batch: Sequence[EncodedPrompt], limits: GenerationLimits, seeds: Sequence[int]
    ) -> list[tuple[GeneratedText, int]]:
        """The base model's texts, each with its number of tokens; `seeds`: one a prompt."""
        inputs = self._collate(batch)
        drawing = [] if limits.sampling is None else [SeededSampling(limits.sampling, seeds)]
        # Summaries and preferences are the base model's: the adapter only answers Yes or No.
        with torch.inference_mode(), self._base_only():
            output = self._model.generate(
                **inputs,
                max_new_tokens=limits.max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList(drawing),
                pad_token_id=self._encoder.pad_id,
            )
        written = output[:, inputs["input_ids"].shape[1] :]  # (B, T), padded on the right
        texts = self._processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        counts = (written != self._encoder.pad_id).sum(dim=1).tolist()
        # A text that ended by itself ends in an end token, or is padded behind it.
        ends = {self._encoder.pad_id, *_end_tokens(self._model)}
        is_full = written.shape[1] >= limits.max_new_tokens
        lasts = written[:, -1].tolist() if is_full else [self._encoder.pad_id] * len(texts)
        return [
            (_written(text, hit_limit=last not in ends), count)
            for text, count, last in zip(texts, counts, lasts, strict=True)
        ]

    # --- adapters --------------------------------------------------------------------------------

    def attach_adapter(self, fingerprint: str, folder: str) -> None:
        """Add an adapter. Raises ModelUnusable and leaves the model as it was if that fails."""
        if fingerprint in self._peft_names:
            return
        # The fingerprint is hexadecimal, so it can be the name of a module.
        try:
            self._attach(fingerprint, folder)
        except _CANNOT_LOAD as error:
            raise _unusable(folder, error) from error
        self._peft_names[fingerprint] = fingerprint

    def detach_adapter(self, fingerprint: str) -> None:
        """Remove an adapter and free its memory."""
        name = self._peft_names.pop(fingerprint, None)
        if name is None:
            return
        if self._model.active_adapter == name and len(self._model.peft_config) > 1:
            other = next(each for each in self._model.peft_config if each != name)
            self._model.set_adapter(other, inference_mode=True)
        if len(self._model.peft_config) > 1:
            self._model.delete_adapter(name)
        else:  # the last one: the base model is left
            self._model = self._model.unload()

    def _attach(self, name: str, folder: str) -> None:
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

    def _using_adapter(self, fingerprint: str) -> AbstractContextManager[Any]:
        if fingerprint not in self._peft_names:
            raise EngineUnavailable(f"the adapter {fingerprint} was unloaded")
        name = self._peft_names[fingerprint]
        if name is None:
            return self._base_only()
        if self._model.active_adapter != name:
            self._model.set_adapter(name, inference_mode=True)
        return nullcontext()

    def _base_only(self) -> AbstractContextManager[Any]:
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        disabled: AbstractContextManager[Any] = self._model.disable_adapter()
        return disabled

    # --- prompts to tensors ----------------------------------------------------------------------

    def encode_to_fit(self, messages: Messages, max_new_tokens: int) -> EncodedPrompt:
        """The prompt, shortened until it leaves room for its answer; EngineRefused if it cannot."""
        room = self._max_tokens - max_new_tokens
        encode = self._encoder.encode
        encoded = encode(messages)
        if encoded.num_tokens <= room:
            return encoded
        shorter = shorten_to_fit(messages, lambda form: encode(form).num_tokens <= room)
        if shorter is None:
            raise EngineRefused(
                f"the prompt has {encoded.num_tokens} tokens, the model takes {room}, and nothing "
                "of it can be cut; use a smaller image"
            )
        return replace(encode(shorter), was_shortened=True)

    def _collate(self, batch: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
        inputs = self._encoder.collate(batch, padding_side="left")
        return {
            name: tensor.to(
                self._model.device, self._model.dtype if tensor.is_floating_point() else None
            )
            for name, tensor in inputs.items()
        }


def _written(text: str, *, hit_limit: bool) -> GeneratedText:
    """Without the half of a character that the limit may have left at its end, as vLLM does."""
    whole = text.rstrip("\ufffd") if hit_limit else text
    return GeneratedText(whole.strip(), hit_limit=hit_limit)


def _unusable(adapter: str, error: Exception) -> ModelUnusable:
    return ModelUnusable(
        f"cannot load the adapter {adapter!r} onto this model ({error}); give a folder, to "
        "--adapter or beside the others, that `msr train` wrote for the same base model"
    )


def _end_tokens(model: Any) -> list[int]:
    """The tokens with which this model ends a text."""
    found = model.generation_config.eos_token_id
    if found is None:
        return []
    return [int(token) for token in (found if isinstance(found, list | tuple) else [found])]
