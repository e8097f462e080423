"""Scoring prompts whose covers `--fit grid` prepares in many shapes."""

import io

from PIL import Image

from services.core.images import ImageForm, prepare_cover
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId

# Widths and heights: a square, a poster, a photograph, screens and banners. Most are another on its
# side, which has as many tiles or patches and so may share its batch.
SIZES = ((500, 500), (800, 1200), (1200, 800), (1600, 900), (900, 1600), (900, 300), (300, 900))


def mixed_prompts(form: ImageForm) -> list[Messages]:
    """One of each size, with a title of another length, and one of text alone."""
    images = [prepare_cover(_a_cover(*size), form).image for size in SIZES]
    items = [
        Item(ItemId(f"i{number}"), "a calm fox " + "in the snow " * number, image)
        for number, image in enumerate([*images, None])
    ]
    return [scoring_messages("Likes calm things in red.", item) for item in items]


def _a_cover(width: int, height: int) -> bytes:
    """It has no symmetry, so that an image on its side is another one."""
    down = Image.linear_gradient("L").resize((width, height))
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    file = io.BytesIO()
    Image.merge("RGB", (down, across, Image.new("L", (width, height), 60))).save(file, "PNG")
    return file.getvalue()
