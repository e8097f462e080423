"""vLLM in this process, driven by `engine.py`: prompts in, one token a step, answers out.

Only this module uses vLLM's Python interface. It takes the options that `msr serve-model` gives to
a server, so that both answer alike.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.core.errors import AnswerTokenMissing, EngineError, EngineRefused, ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import GeneratedText
from services.engines.models.families import supported
from services.engines.models.model_files import load_processor
from services.engines.prompt_encoding import PromptEncoder
from services.engines.prompt_fitting import shorten_to_fit
from services.engines.text_processor import TEMPLATE_ARGUMENTS
from services.engines.vllm_client.chat_requests import (
    TOO_LONG_PARAMETERS,
    sampling_options,
    turns,
)
from services.engines.vllm_server.command import ServeOptions, build_command, device_of_this_machine

_ADAPTER = "adapter"
_IN_PROCESS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a process of its own would outlive a killed worker
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # a step's result goes to stdout
}
# Prompts that are prepared, per prompt that runs: each holds the pixels of its image (some MB).
_READY_FACTOR = 2

Answer = str | AnswerLogprobs | EngineError


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """Tokens and pixels in vLLM's own form; `limits` is None for a score."""

    rendered: Any
    limits: GenerationLimits | None
    was_shortened: bool


class VllmCore:
    """A loaded `vllm.LLM`. But for `prepare`, only the thread that made it may call it.

    On a CPU vLLM binds that thread, and those it starts, to cores.
    """

    def __init__(self, model: str, adapter: str | None, *, texts_only: bool = False) -> None:
        """Load a checkpoint (folder, merged or not, or hub name) and an adapter folder.

        Raises ModelUnusable or ArtifactMismatch with what is wrong and where, EngineUnavailable if
        vLLM is not installed, AnswerTokenMissing if the chat template has no one-token Yes and No.
        """
        adapters = () if adapter is None else ((_ADAPTER, adapter),)
        command = build_command(ServeOptions(model, adapters), device_of_this_machine())
        try:
            with _environment({**command.environment, **_IN_PROCESS}):
                self._vllm = _load(command.arguments)
            processor = load_processor(model, texts_only=texts_only)
            encoder = PromptEncoder(processor, texts_only=texts_only)
        except EngineError:
            raise
        except Exception as error:  # vLLM raises many kinds; all mean that it cannot start
            raise ModelUnusable(
                f"vLLM cannot load {model!r} ({type(error).__name__}: {error}); supported are "
                f"{supported()}, on a machine with the memory that the model needs"
            ) from error
        self._encoder = encoder
        self._template_arguments = TEMPLATE_ARGUMENTS if texts_only else {}
        if not texts_only:
            _ = encoder.answers  # raises if there are none
        self._adds_special_tokens = encoder.adds_special_tokens
        self._adapter = adapter
        self._max_tokens = int(self._vllm.model_config.max_model_len)
        max_running = int(self._vllm.vllm_config.scheduler_config.max_num_seqs)
        self.max_in_hand = _READY_FACTOR * max_running

    def prepare(self, messages: Messages, limits: GenerationLimits | None) -> PreparedPrompt:
        """The prompt as vLLM takes it, shortened until it leaves room for its answer.

        For one other thread, so that images are decoded while the model computes. Raises
        EngineRefused if it cannot be taken.
        """
        room = self._max_tokens - (1 if limits is None else limits.max_new_tokens)
        rendered = self._render(messages, room)
        if rendered is not None:
            return PreparedPrompt(rendered, limits, was_shortened=False)
        shorter = shorten_to_fit(messages, lambda form: self._render(form, room) is not None)
        if shorter is None:
            raise EngineRefused(
                f"the prompt has more than the {room} tokens that the model has room for, with its "
                "texts cut; use a smaller image"
            )
        return PreparedPrompt(self._render(shorter, room), limits, was_shortened=True)

    def add(self, number: str, prompt: PreparedPrompt) -> None:
        """Include a prompt in the following steps; EngineRefused if vLLM does not take it."""
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        if prompt.limits is not None:
            lora = None  # summaries and preferences are the base model's
            sampling = SamplingParams(
                **sampling_options(prompt.limits), max_tokens=prompt.limits.max_new_tokens
            )
        else:
            lora = LoRARequest(_ADAPTER, 1, self._adapter) if self._adapter is not None else None
            answers = self._encoder.answers
            tokens = [answers.yes, answers.no]
            sampling = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=tokens)
        try:
            self._vllm.add_request(number, prompt.rendered, sampling, lora_request=lora)
        except Exception as error:  # vLLM raises many kinds; here this prompt is at fault
            raise _refused(error) from error

    def step(self) -> Iterator[tuple[str, Answer]]:
        """Advance every prompt by a token; numbers and answers of those that are done."""
        for output in self._vllm.step():
            if output.finished:
                yield output.request_id, self._answer(output.outputs[0])

    def abort(self, numbers: Sequence[str]) -> None:
        """Drop cancelled prompts."""
        self._vllm.abort_request(list(numbers))

    def shutdown(self) -> None:
        """Free the memory."""
        self._vllm.engine_core.shutdown()

    def _render(self, messages: Messages, room: int) -> Any:
        """The prompt in vLLM's form; None if it has more tokens than `room`."""
        from vllm.renderers import ChatParams

        renderer = self._vllm.renderer
        template = ChatParams(
            chat_template_kwargs={
                "add_generation_prompt": True,
                "tokenize": False,
                **self._template_arguments,
            }
        )
        tokenizing = renderer.default_chat_tok_params.with_kwargs(
            add_special_tokens=self._adds_special_tokens
        )
        try:
            _, (rendered,) = renderer.render_chat([turns(messages)], template, tokenizing)
        except Exception as error:  # as in `add`
            if getattr(error, "parameter", None) in TOO_LONG_PARAMETERS:
                return None
            raise _refused(error) from error
        return rendered if len(rendered["prompt_token_ids"]) <= room else None

    def _answer(self, completion: Any) -> Answer:
        if completion.logprobs is None:
            is_cut = completion.finish_reason == "length"
            return GeneratedText(str(completion.text).strip(), hit_limit=is_cut)
        logprobs, tokens = completion.logprobs[0], self._encoder.answers
        try:
            yes, no = (logprobs[token].logprob for token in (tokens.yes, tokens.no))
        except KeyError as error:
            return AnswerTokenMissing(
                f"vLLM gave the log-probabilities of {sorted(logprobs)}, without token {error}; it "
                "must support logprob_token_ids (vLLM 0.32)"
            )
        return AnswerLogprobs(yes=yes, no=no)


def _load(command_line: Sequence[str]) -> Any:
    """An engine with the options of a command that would start a server."""
    # Imported here: it takes seconds, and only who gets this far needs vLLM.
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    options = command_line[command_line.index("--model") :]
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(list(options))
    engine = LLM.from_engine_args(EngineArgs.from_cli_args(parsed)).llm_engine
    # Says at every prompt that vLLM's CPU build ignores what vLLM asks for.
    logging.getLogger("vllm.v1.worker.cpu_worker").setLevel(logging.ERROR)
    return engine


def _refused(error: Exception) -> EngineRefused:
    return EngineRefused(f"vLLM could not take this prompt ({type(error).__name__}: {error})")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables inside only: later processes must not inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
