"""Finds the shapes of images that suit a model, and what each costs: `--fit grid`.

form = find_form("llava-hf/llava-v1.6-mistral-7b-hf", None)

Models cut an image into tiles of a grid, or into patches of any number, or resize it to one size.
Which of these, and by which numbers, is read from the model's own processor. Candidates are a few
aspect ratios; what an image of each costs is counted by encoding a prompt with one, so it is what
the model's own processor makes of it. A candidate that costs more than MAX_COST of the square of
the same size is left out. The rule by which a cover takes one is in `core/images.py`.
"""

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from services.core.errors import InputError
from services.core.images import ImageForm, ImageShape, blank_image
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.models.families import FAMILIES, supported
from services.engines.models.model_files import load_processor, read_config
from services.engines.prompt_encoding import PromptEncoder

# Longer side to shorter: squares, photographs, books and posters, screens, telephones, banners.
ASPECT_RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0, 3.0)
# Height to width, upright and lying.
_RATIOS = (*ASPECT_RATIOS, *(1 / each for each in ASPECT_RATIOS[1:]))
_LARGE = 4096
# Options by which processors cut an image into tiles of one size: InternVL's, SmolVLM's.
_TILE_CUTTING = ("crop_to_patches", "do_image_splitting")
# Of the tokens of the square. LLaVA-NeXT's two tiles cost at most 1.51 of it, three tiles 2.02.
MAX_COST = 2.0
# The side of a square of as many pixels, for models that take images of any shape.
DEFAULT_SIDE = 336

Size = tuple[int, int]  # height, width


def find_form(model: str, side: int | None) -> ImageForm:
    """The form in which covers are prepared for a checkpoint (folder or hub name).

    `side` is the shorter side of the grid's tiles for a model that has a grid, else that of a
    square of as many pixels; None for the model's own. Raises InputError for a model that is none
    of the families, or a side that it has no shapes for; ModelUnusable if it cannot be read.
    """
    config = read_config(model)
    if config.model_type not in FAMILIES:
        raise InputError(
            f"{model!r} is a model of type {config.model_type!r}, of which no image shapes are "
            f"known; name a model of {supported()} with --model, or use --fit square"
        )
    return form_of(load_processor(model), config, side)


def form_of(processor: Any, config: Any, side: int | None) -> ImageForm:
    """The same from a model's processor and configuration; the cheapest shapes come first."""
    found = _candidates(processor, config, side)
    encoder = PromptEncoder(processor)
    square = (found.side, found.side)
    costs = {
        size: count_tokens(encoder, size) for size in {square, *chain(*found.by_ratio.values())}
    }
    if found.is_shrunk(square, costs[square]):
        raise InputError(
            f"--image-size {found.side} is more than this model's processor lets through; give a "
            "smaller one"
        )
    most = MAX_COST * costs[square]
    shapes = set()
    by_ratio = found.by_ratio
    if len(set(costs.values())) == 1:  # whatever the shape, the model resizes it to one
        by_ratio = {1.0: [square]}
    for ratio, sizes in by_ratio.items():
        priced = [
            ImageShape(*size, costs[size])
            for size in sizes
            if costs[size] <= most and not found.is_shrunk(size, costs[size])
        ]
        if priced:
            shapes.add(max(priced, key=lambda shape: _worth(shape, ratio)))
    ordered = sorted(shapes, key=lambda shape: (shape.num_tokens, shape.height, shape.width))
    return ImageForm(found.side, tuple(ordered), config.model_type)


def count_tokens(encoder: PromptEncoder, size: Size) -> int:
    """By how many tokens an image of this height and width makes a prompt longer."""
    [message] = scoring_messages("", Item(ItemId("blank"), "A title", blank_image(*size)))
    with_it, without = (
        encoder.encode((each,)).num_tokens for each in (message, replace(message, image=None))
    )
    return with_it - without


def _worth(shape: ImageShape, ratio: float) -> tuple[float, int]:
    """Orders shapes as `ImageForm.shape_for` does, for a large cover of this ratio."""
    height, width = round(_LARGE * ratio**0.5), round(_LARGE / ratio**0.5)
    return shape.content_pixels(width, height) / shape.num_tokens, -shape.num_tokens


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The side that is meant; by ratio, heights and widths of which a model resizes nothing.

    `unit` is the side of what becomes one token, for models that take any number of them.
    """

    side: int
    by_ratio: dict[float, list[Size]]
    unit: int | None = None

    def is_shrunk(self, size: Size, num_tokens: int) -> bool:
        """Whether an image has fewer tokens than its size would give."""
        return self.unit is not None and num_tokens * self.unit**2 < 0.9 * size[0] * size[1]


def _candidates(processor: Any, config: Any, side: int | None) -> _Candidates:
    images = processor.image_processor
    if grid := getattr(images, "image_grid_pinpoints", None):
        pinpoints = [(int(height), int(width)) for height, width in grid]
        return _of_grid(pinpoints, _patch_size(processor, config), side)
    own = _fixed_side(images)
    cuts_tiles = any(hasattr(images, name) for name in _TILE_CUTTING)
    if own is not None and not cuts_tiles:  # whatever it is given becomes this square
        side = side or own
        return _Candidates(side, {1.0: [(side, side)]})
    side = side or own or DEFAULT_SIDE
    unit = _patch_size(processor, config) * _merge_size(processor)
    if side < unit:
        raise InputError(
            f"--image-size {side} is less than one image token of this model; give at least {unit}"
        )
    by_ratio = {ratio: [_of_ratio(ratio, side, unit)] for ratio in _RATIOS}
    return _Candidates(side, by_ratio, None if cuts_tiles else unit)


# --- a grid of tiles -----------------------------------------------------------------------------


def _of_grid(pinpoints: list[Size], patch: int, side: int | None) -> _Candidates:
    """Sizes that lie within the grid's rectangles of this shorter side.

    What of a rectangle an image does not fill is padded by the processor, and these patches are
    dropped again by the model, if they are as many on either side.
    """
    tile = min(min(each) for each in pinpoints)
    sides = sorted({min(each) for each in pinpoints})
    side = side or tile
    if side not in sides:
        known = " or ".join(map(str, sides))
        raise InputError(
            f"--image-size {side} is no side of this model's grid; give it {known}, or leave it out"
        )
    step = 2 * tile / (tile // patch)  # SigLIP's patches do not fill its tiles
    rectangles = [each for each in pinpoints if min(each) == side]
    found = {
        ratio: [_inscribed(height, width, ratio, step) for height, width in rectangles]
        for ratio in _RATIOS
    }
    found[1.0].append((side, side))
    return _Candidates(side, found)


def _inscribed(height: int, width: int, ratio: float, step: float) -> Size:
    """The largest size of this ratio (height to width) in a rectangle, in whole steps less."""
    if ratio > height / width:
        return height, _fewer_steps(width, height / ratio, step)
    return _fewer_steps(height, width * ratio, step), width


def _fewer_steps(whole: int, wanted: float, step: float) -> int:
    most = int(whole // step)
    num_steps = min(round((whole - wanted) / step), most - (most * step >= whole))
    return round(whole - num_steps * step)


# --- any number of patches -----------------------------------------------------------------------


def _of_ratio(ratio: float, side: int, unit: int) -> Size:
    """Height and width of about this ratio and `side` squared pixels, in whole units."""
    height, width = side * ratio**0.5, side / ratio**0.5
    return max(1, round(height / unit)) * unit, max(1, round(width / unit)) * unit


# --- what the files say --------------------------------------------------------------------------


def _patch_size(processor: Any, config: Any) -> int:
    """Pixels on the side of a patch of the vision tower."""
    vision = getattr(config, "vision_config", None)
    found = getattr(vision, "patch_size", None) or getattr(
        processor.image_processor, "patch_size", None
    )
    if isinstance(found, dict):
        found = found["height"]
    if isinstance(found, list | tuple):
        found = found[0]
    return int(found or 1)


def _merge_size(processor: Any) -> int:
    """How many patches on a side become one token."""
    merged = getattr(processor.image_processor, "merge_size", None)
    return int(merged or getattr(processor, "spatial_merge_size", None) or 1)


def _fixed_side(images: Any) -> int | None:
    """The side of the square that every image, or every tile, becomes; None if there is none."""
    size = getattr(images, "crop_size", None) or images.size
    height, width = (getattr(size, name, None) for name in ("height", "width"))
    return None if height is None or width is None else int(min(height, width))
