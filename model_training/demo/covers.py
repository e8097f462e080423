"""Draws the cover of a demo item with Pillow: the topic as a shape, the palette, the drawing style.

Position, size, angle and tint are drawn at random, so that no two covers are alike. Patterns are
coarse and nearly aligned with the patches: a small vision tower, which cuts a 56-pixel cover into
patches of 14 pixels, must see a stripe or a dot within one patch.
"""

import io
import math
from random import Random

from PIL import Image, ImageChops, ImageDraw

from model_training.demo.attributes import Attributes

Point = tuple[float, float]
Color = tuple[int, int, int]

SUPERSAMPLING = 4
PATTERN_PERIOD = 0.25  # of the cover's side, like the lengths below: one patch of 14 in 56 pixels
DOT_RADIUS = 0.085
OUTLINE_WIDTH = 0.075
CONTOUR_WIDTH = 0.03
PHASE_JITTER = 0.15  # of the period

_MAIN_COLORS: dict[str, Color] = {
    "red": (208, 38, 40),
    "yellow": (238, 190, 20),
    "green": (40, 145, 62),
    "blue": (36, 84, 204),
    "purple": (138, 48, 168),
    "gray": (96, 98, 102),
}


def _arc(center: Point, radius: float, start: float, end: float, steps: int = 24) -> list[Point]:
    """Points of an arc; angles in degrees, y downwards."""
    angles = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
    return [(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles]


def _star() -> list[Point]:
    points = []
    for k in range(10):
        angle, radius = math.radians(36 * k - 90), 1.0 if k % 2 == 0 else 0.48
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return points


def _heart() -> list[Point]:
    points = []
    for k in range(40):
        t = 2 * math.pi * k / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16.5, -y / 15.5))
    return points


# Each topic is one closed polygon within the unit circle or a little beyond it; y points downwards.
_SHAPES: dict[str, list[Point]] = {
    "star": _star(),
    "moon": _arc((0.0, 0.0), 1.0, 60, 300) + _arc((0.42, 0.0), 0.87, 275, 85),
    "heart": _heart(),
    "house": [
        (-0.8, 0.9), (-0.8, -0.1), (0.0, -0.95), (0.35, -0.58), (0.35, -0.95), (0.65, -0.95),
        (0.65, -0.27), (0.8, -0.1), (0.8, 0.9),
    ],
    "tree": [
        (-0.2, 0.95), (-0.2, 0.5), (-0.85, 0.5), (-0.35, -0.1), (-0.65, -0.1), (0.0, -1.0),
        (0.65, -0.1), (0.35, -0.1), (0.85, 0.5), (0.2, 0.5), (0.2, 0.95),
    ],
    "boat": [
        (-0.95, 0.35), (-0.1, 0.35), (-0.1, 0.2), (-0.7, 0.2), (0.0, -0.95), (0.7, 0.2),
        (0.1, 0.2), (0.1, 0.35), (0.95, 0.35), (0.55, 0.9), (-0.55, 0.9),
    ],
    "cup": [
        (-0.85, -0.75), (0.45, -0.75), (0.45, -0.5), (0.95, -0.5), (0.95, 0.3), (0.4, 0.4),
        (0.35, 0.8), (-0.7, 0.8),
    ],
    "kite": [(0.0, -1.0), (0.75, -0.25), (0.15, 0.7), (0.5, 1.0), (-0.5, 1.0), (-0.15, 0.7),
             (-0.75, -0.25)],
}  # fmt: skip


def draw_cover(shown: Attributes, rng: Random, *, size: int) -> bytes:
    """A cover of `size` x `size` pixels as a PNG file; the mood has no effect."""
    side = size * SUPERSAMPLING
    main = _jitter(_MAIN_COLORS[shown.palette], rng)
    paper = _mix((255, 255, 255), main, rng.uniform(0.04, 0.22))
    outline = _place(_SHAPES[shown.topic], rng, side)

    inside = Image.new("L", (side, side), 0)
    ImageDraw.Draw(inside).polygon(outline, fill=255)
    ink = _contour(outline, side, OUTLINE_WIDTH if shown.style == "outline" else CONTOUR_WIDTH)
    if shown.style == "flat":
        ink = ImageChops.lighter(ink, inside)
    elif shown.style == "striped":
        ink = ImageChops.lighter(ink, ImageChops.multiply(inside, _stripes(rng, side)))
    elif shown.style == "dotted":
        ink = ImageChops.lighter(ink, ImageChops.multiply(inside, _dots(rng, side)))

    cover = Image.new("RGB", (side, side), paper)
    cover.paste(Image.new("RGB", (side, side), main), mask=ink)
    encoded = io.BytesIO()
    cover.resize((size, size), Image.Resampling.BOX).save(encoded, format="PNG")
    return encoded.getvalue()


def _jitter(color: Color, rng: Random) -> Color:
    brightness = rng.uniform(0.88, 1.1)
    red, green, blue = (
        max(0, min(255, round(channel * brightness + rng.uniform(-12, 12)))) for channel in color
    )
    return (red, green, blue)


def _mix(first: Color, second: Color, share: float) -> Color:
    red, green, blue = (
        round((1 - share) * a + share * b) for a, b in zip(first, second, strict=True)
    )
    return (red, green, blue)


def _place(shape: list[Point], rng: Random, side: int) -> list[Point]:
    """Turn, scale and shift the unit shape onto the cover."""
    angle, radius = math.radians(rng.uniform(-14, 14)), side * rng.uniform(0.37, 0.47)
    center_x, center_y = (side * rng.uniform(0.45, 0.55) for _ in range(2))
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)
    return [(center_x + cos * x - sin * y, center_y + sin * x + cos * y) for x, y in shape]


def _contour(outline: list[Point], side: int, width: float) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    closed = [*outline, outline[0], outline[1]]
    ImageDraw.Draw(mask).line(closed, fill=255, width=round(width * side), joint="curve")
    return mask


def _stripes(rng: Random, side: int) -> Image.Image:
    """Nearly level stripes: half ink, half paper."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    period = side * PATTERN_PERIOD
    rise = side * math.tan(math.radians(rng.uniform(-4, 4)))
    top = -2 * period - rise / 2 + period * rng.uniform(-PHASE_JITTER, PHASE_JITTER)
    while top < side + period:
        corners = [(0, top), (side, top + rise), (side, top + rise + period / 2)]
        draw.polygon([*corners, (0, top + period / 2)], fill=255)
        top += period
    return mask


def _dots(rng: Random, side: int) -> Image.Image:
    """Round dots of ink in rows and columns."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    period, radius = side * PATTERN_PERIOD, side * DOT_RADIUS
    first_x, first_y = (
        period * (0.5 + rng.uniform(-PHASE_JITTER, PHASE_JITTER)) - period for _ in range(2)
    )
    num_dots = round(1 / PATTERN_PERIOD) + 2
    for row in range(num_dots):
        for column in range(num_dots):
            x, y = first_x + column * period, first_y + row * period
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask
