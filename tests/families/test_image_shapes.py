"""The shapes that suit each family: found in its own files, counted by its own processor."""

from functools import cache
from typing import Any

import pytest

from benchmarks.families.checkpoints import FAMILIES, build_processor, write_checkpoint
from services.core.errors import InputError
from services.core.images import ImageForm, blank_image
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.models.image_shapes import count_tokens, find_form, form_of
from services.engines.prompt_encoding import PromptEncoder

# They need what vLLM brings: torchvision, and the tokenizer that `mistral-common` ships.
pytestmark = pytest.mark.vllm

NEXT = "mistral"  # LLaVA-NeXT
POSTER = (800, 1200)  # width, height


@cache
def processor(name: str) -> Any:
    return build_processor(name)


@cache
def form(name: str, side: int | None = None) -> ImageForm:
    own = processor(name)
    return form_of(own, FAMILIES[name].config(own.tokenizer), side)


def of_poster(name: str, side: int | None = None) -> tuple[int, int, int]:
    """Tokens, and content pixels in thousands, and height of what a poster is prepared to."""
    found = form(name, side)
    height, width = found.shape_for(*POSTER)
    [shape] = [each for each in found.shapes if (each.height, each.width) == (height, width)]
    return shape.num_tokens, round(shape.content_pixels(*POSTER) / 1000), height


def test_a_poster_on_llava_next_costs_what_its_grid_says():
    # The marks around an image are two more tokens than the image itself.
    assert of_poster(NEXT) == (1478, 169, 504)
    assert of_poster(NEXT, 672) == (2162, 301, 672)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_shape_costs_what_its_own_processor_makes_of_it(name: str):
    encoder = PromptEncoder(processor(name))

    for shape in form(name).shapes:
        image = blank_image(shape.height, shape.width)
        with_it = encoder.encode(scoring_messages("", Item(ItemId("i"), "A title", image)))
        assert (
            with_it.num_tokens
            > shape.num_tokens
            == count_tokens(encoder, (shape.height, shape.width))
        )


@pytest.mark.parametrize("name", list(FAMILIES))
def test_shapes_are_few_and_a_square_cover_keeps_a_square(name: str):
    found = form(name)

    assert 1 <= len(found.shapes) <= 11
    height, width = found.shape_for(500, 500)
    assert height == width


@pytest.mark.parametrize("name", ["internvl-3", "gemma-3"])
def test_a_family_that_resizes_everything_to_one_square_has_one_shape(name: str):
    [shape] = form(name).shapes

    assert shape.height == shape.width


def test_a_side_that_the_grid_has_not_is_refused_with_those_it_has():
    with pytest.raises(InputError, match=r"--image-size 400 is no side .* 336 or 672"):
        form(NEXT, 400)


def test_a_side_below_one_token_is_refused():
    with pytest.raises(InputError, match=r"--image-size 8 is less than one image token"):
        form("qwen-3", 8)


def test_a_definition_gives_the_form_back():
    found = form(NEXT)

    assert ImageForm.from_definition(found.to_definition()) == found


def test_a_checkpoint_of_a_family_is_read_from_its_folder(tmp_path: Any):
    folder = write_checkpoint("qwen-3", tmp_path / "model")

    assert find_form(str(folder), None).model_type == "qwen3_vl"
