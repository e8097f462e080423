"""The image tokens of the GPU guide's arithmetic are those of the real processors."""

from typing import Any

import pytest
from PIL import Image

from benchmarks.families.checkpoints import build_processor
from benchmarks.families.model_sizes import LLAVA, QWEN_4B, PublishedModel

# It needs what vLLM brings.
pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("family", "model", "token", "beside"),
    [("mistral", LLAVA, "<image>", 0), ("qwen-3", QWEN_4B, "<|image_pad|>", 2)],
)
@pytest.mark.parametrize("side", [336, 672])
def test_a_cover_has_the_tokens_that_the_processor_gives_it(
    family: str, model: PublishedModel, token: str, beside: int, side: int
):
    processor: Any = build_processor(family)

    encoded = processor(text=token, images=[Image.new("RGB", (side, side))], return_tensors="pt")

    number = processor.tokenizer.convert_tokens_to_ids(token)
    assert int((encoded["input_ids"] == number).sum()) + beside == model.image_tokens[side]
