"""The processor of a model that reads text alone: its tokenizer, asked as the others are.

Chat templates of text-only models take a turn's content as a string, those of multimodal ones as a
list of parts; which one this template takes is found by rendering a text both ways. Where a
template can make the model think before it answers (`enable_thinking`), it is told not to: what is
written is the preference, and nothing else. vLLM is told the same (`chat_requests.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from services.core.errors import EngineRefused, ModelUnusable
from services.engines.rendering import adds_special_tokens

# What a template of a writer is told besides the messages.
TEMPLATE_ARGUMENTS = {"enable_thinking": False}
_PROBE = "Is this text shown?"


class TextProcessor:
    """A tokenizer behind the part of a processor's interface that `PromptEncoder` uses."""

    image_processor = None

    def __init__(self, tokenizer: Any) -> None:
        """ModelUnusable if the tokenizer has no chat template, or one that shows no text."""
        self.tokenizer = tokenizer
        self.chat_template = getattr(tokenizer, "chat_template", None)
        self._takes_parts = False
        if not self.chat_template:
            raise ModelUnusable(
                f"this {type(tokenizer).__name__} has no chat template: the model is a base model, "
                "or its template was left out; name one that was tuned to follow instructions, or "
                "add its chat_template.jinja to the folder"
            )
        for self._takes_parts in (False, True):
            if _PROBE in (text := self._render_probe()):
                self._adds_special_tokens = adds_special_tokens(
                    *(self._ids(text, add_special_tokens=adds) for adds in (True, False))
                )
                return
        raise ModelUnusable(
            "the chat template shows neither a text nor a part of type text; put the template "
            "there that belongs to this model"
        )

    def apply_chat_template(
        self,
        content: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool = True,
        return_dict: bool = True,
        processor_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The rendered text, or its tensors as a processor gives them; EngineRefused for images."""
        text: str = self.tokenizer.apply_chat_template(
            [self._turn(each) for each in content],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **TEMPLATE_ARGUMENTS,
        )
        if not tokenize:
            return text
        encoded = self.tokenizer(
            text, add_special_tokens=self._adds_special_tokens, **(processor_kwargs or {})
        )
        # Some tokenizers return more, which their models take as given.
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return ids

    def _turn(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        if any(part["type"] != "text" for part in turn["content"]):
            raise EngineRefused(
                "this model reads text alone and was asked about an image; use a multimodal model"
            )
        if self._takes_parts:
            return dict(turn)
        return {**turn, "content": "".join(part["text"] for part in turn["content"])}

    def _render_probe(self) -> str:
        from jinja2 import TemplateError

        part = {"type": "text", "text": _PROBE}
        try:
            text: str = self.apply_chat_template(
                [{"role": "user", "content": [part]}], tokenize=False
            )
        except (TemplateError, TypeError):
            return ""
        return text
