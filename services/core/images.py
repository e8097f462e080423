"""Prepares an image for the model and for people: which files are accepted, what becomes of them.

Every cover is prepared once for the model: letterboxed to a shape of an `ImageForm`, a square or
one of the few shapes that suit a model. So no image processor resizes it (torchvision and Pillow
resize differently), no image is padded to the size of others in its batch, and a score is the same
wherever it is computed. People are shown a smaller copy of the cover as it came, without padding.

Files may come from strangers. So their cost is bounded before any pixel is decoded: format, bytes,
pixels, reads and decoder passes. Only the first frame of an animation is used. Images in
preparation hold about 400 MB at most in any number of threads, since large ones are prepared one
at a time.
"""

import contextlib
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from services.core.errors import ImageRefused

DEFAULT_IMAGE_SIZE = 336
MAX_IMAGE_BYTES = 20 * 1024 * 1024
# A JPEG is decoded at reduced size. Other formats hold every pixel in memory, some several times.
MAX_JPEG_PIXELS = 50_000_000
MAX_IMAGE_PIXELS = 25_000_000
LARGE_PIXELS = 4_000_000
# A longer strip than this would be a few pixels thin in any form.
MAX_ASPECT_RATIO = 20
# The longer side of what people are shown.
COVER_SIDE = 512
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: what Pillow calls a JPEG with further images behind it

# The mean color of CLIP's training images: after normalization the border is about zero.
_BORDER = (122, 116, 104)
# Coding as JPEG changes the border's color by a little, near a sharp edge by more.
_BORDER_TOLERANCE = 24

# The EXIF tag of the orientation, what its values ask for, and those of an image on its side.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)

# An image of 20 MB in chunks of 4 kB takes some 20,000 reads. A file of nothing but chunk headers
# takes millions of reads, and minutes.
_MAX_READS = 100_000

# Progressive files have about ten scans. A scan of a few bytes can cost a pass over all pixels.
_MAX_JPEG_SCANS = 40

_BMP_RUN_LENGTHS = (1, 2)  # Pillow decodes these byte by byte, in Python

_ROWS_AT_ONCE = 256
_large_images = threading.Lock()

# Pillow warns of each odd tag with a new text, and Python keeps every warning: a file could fill
# the log and the memory. Faults that matter are refused below.
warnings.filterwarnings("ignore", module=r"PIL\.")

# What Pillow's parsers raise on truncated, corrupt or hostile files.
_DECODER_ERRORS = (
    Image.DecompressionBombError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


Fit = Literal["square", "grid"]


@dataclass(frozen=True, slots=True)
class ImageShape:
    """Height and width of a prepared image, and the tokens that it costs in a prompt."""

    height: int
    width: int
    num_tokens: int

    def content_pixels(self, width: int, height: int) -> float:
        """How many pixels show a cover of this size: without padding, and never more than the
        cover has itself.
        """
        scale = min(self.width / width, self.height / height, 1.0)
        return width * scale * height * scale


@dataclass(frozen=True, slots=True)
class ImageForm:
    """How covers become the images that the model sees.

    `square`: every one is letterboxed into `size` x `size`. `grid`: into that of `shapes` which
    shows most of the cover's own pixels for each image token, so its own size and shape alone
    decide. `model_type` names whose shapes they are (`engines/models/image_shapes.py`), `size` is
    what they were asked by.
    """

    size: int = DEFAULT_IMAGE_SIZE
    shapes: tuple[ImageShape, ...] = ()
    model_type: str = ""

    @property
    def fit(self) -> Fit:
        """How it is named on the command line."""
        return "grid" if self.shapes else "square"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every shape that an image can have."""
        return tuple((each.height, each.width) for each in self.shapes) or ((self.size, self.size),)

    @property
    def mean_pixels(self) -> float:
        """Of a prepared image, if all shapes are as frequent."""
        return sum(height * width for height, width in self.sizes) / len(self.sizes)

    def shape_for(self, width: int, height: int) -> tuple[int, int]:
        """Height and width that a cover of this size is prepared to."""
        if not self.shapes:
            return self.size, self.size
        best = max(
            self.shapes,
            key=lambda shape: (
                shape.content_pixels(width, height) / shape.num_tokens,
                -shape.num_tokens,
            ),
        )
        return best.height, best.width

    def to_definition(self) -> dict[str, Any]:
        """Its part of the definition of `items`; that of a square is as it always was."""
        if not self.shapes:
            return {"image_size": self.size}
        shapes = [[each.height, each.width, each.num_tokens] for each in self.shapes]
        return {
            "image_size": self.size,
            "fit": self.fit,
            "image_shapes": shapes,
            "image_shapes_of": self.model_type,
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> "ImageForm":
        """The form that items of this definition have."""
        shapes = tuple(ImageShape(*map(int, each)) for each in definition.get("image_shapes", ()))
        model_type = definition.get("image_shapes_of", "")
        return cls(int(definition["image_size"]), shapes, model_type)


@dataclass(frozen=True, slots=True)
class PreparedCover:
    """A cover twice: `image` is what the model sees, `shown` what people see (a JPEG)."""

    image: bytes
    shown: bytes


def prepare_image(data: bytes, size: int = DEFAULT_IMAGE_SIZE) -> bytes:
    """A JPEG of `size` x `size` pixels: first frame, upright, on white where transparent,
    letterboxed. The same bytes in give the same bytes out.

    Raises ImageRefused for an empty, oversized, broken or unaccepted file, and for a strip longer
    than MAX_ASPECT_RATIO. The header is checked before any pixel is decoded.
    """
    return _checked(data, ImageForm(size), for_people=False).image


def prepare_cover(data: bytes, form: ImageForm) -> PreparedCover:
    """The same in a shape of `form`, and the cover for people in its own shape, COVER_SIDE pixels
    long at most.
    """
    return _checked(data, form, for_people=True)


def thumbnail(image: bytes, width: int, *, is_prepared: bool = False) -> bytes:
    """An image for people to look at: WebP, at most `width` pixels wide and high.

    The letterbox of an image that was prepared for the model is cut off, as far as it is plainly
    one.
    """
    with contextlib.closing(_open(image)) as opened:
        if is_prepared:
            shown = _without_letterbox(opened.convert("RGB"))
        else:
            opened.draft("RGB", (width, width))
            shown = opened.convert("RGB")
        shown.thumbnail((width, width), Image.Resampling.LANCZOS)
        encoded = io.BytesIO()
        shown.save(encoded, format="WEBP", quality=80)
        return encoded.getvalue()


def blank_image(height: int = DEFAULT_IMAGE_SIZE, width: int | None = None) -> bytes:
    """A prepared image that shows nothing; a square if it has no width of its own."""
    return _blank(height, height if width is None else width)


def blank_like(image: bytes) -> bytes:
    """The same in the shape of a prepared one, for the ablation "the model sees no cover"."""
    with contextlib.closing(_open(image)) as opened:
        return _blank(opened.height, opened.width)


@lru_cache(maxsize=64)
def _blank(height: int, width: int) -> bytes:
    return _encode(Image.new("RGB", (width, height), _BORDER))


def _checked(data: bytes, form: ImageForm, *, for_people: bool) -> PreparedCover:
    if not data:
        raise ImageRefused("the image is an empty file; replace it or leave the image out")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageRefused(
            f"the image has {len(data):,} bytes, more than {MAX_IMAGE_BYTES:,}; shrink it"
        )
    try:
        with _open(data) as opened:
            _refuse_dimensions(opened)
            _refuse_slow_coding(opened, data)
            large = opened.width * opened.height > LARGE_PIXELS
        with _large_images if large else contextlib.nullcontext():
            return _prepare(data, form, for_people=for_people)
    except _TooManyReads as error:
        raise ImageRefused(
            f"the image's file has more than {_MAX_READS:,} parts; save it anew"
        ) from error
    except UnidentifiedImageError as error:  # its message names a memory address
        raise ImageRefused(
            f"the file is not an image; accepted are {', '.join(ACCEPTED_FORMATS)}"
        ) from error
    except _DECODER_ERRORS as error:
        raise ImageRefused(
            f"the image cannot be decoded ({type(error).__name__}: {str(error)[:200]}); replace it"
        ) from error


class _TooManyReads(Exception):
    pass


class _BoundedReads(io.BytesIO):
    """A file that allows _MAX_READS reads.

    Pillow's readers step through chunks, blocks or segments in Python, under the interpreter's
    lock, and some copy everything read so far at each step.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._num_left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._num_left -= 1
        if self._num_left < 0:
            raise _TooManyReads
        return super().read(size)


def _open(data: bytes) -> Image.Image:
    return Image.open(_BoundedReads(data), formats=ACCEPTED_FORMATS)


def _prepare(data: bytes, form: ImageForm, *, for_people: bool) -> PreparedCover:
    # Closing frees the pixels at once, even if a traceback still refers to the image.
    with contextlib.closing(_open(data)) as opened:
        own_size = opened.size
        lies = _orientation(opened) in _LYING
        height, width = form.shape_for(*(own_size[::-1] if lies else own_size))
        # A JPEG is decoded at reduced size, twice as large as it is needed.
        needed = 2 * max(height, width)
        opened.draft("RGB", (needed, needed))
        was_reduced = opened.size != own_size
        upright = _upright(opened)
        image = _encode(_letterbox(upright, height, width))
        shown = b""
        if for_people and not (was_reduced and needed < COVER_SIDE):
            shown = _encode_for_people(upright)
    if for_people and not shown:
        shown = _decode_for_people(data)
    return PreparedCover(image, shown)


def _decode_for_people(data: bytes) -> bytes:
    """From a JPEG that was decoded too small for people to look at."""
    with contextlib.closing(_open(data)) as opened:
        opened.draft("RGB", (COVER_SIDE, COVER_SIDE))
        return _encode_for_people(_upright(opened))


def _upright(image: Image.Image) -> Image.Image:
    """The pixels as RGB, turned as the file asks. Its metadata is never written again: that fails
    where one tag is broken, whatever the pixels are.
    """
    turn = _TURNS.get(_orientation(image))
    flat = _flatten(image)
    return flat if turn is None else flat.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none, or none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except _DECODER_ERRORS:  # the metadata is broken, which says nothing of the pixels
        return 1
    return value if isinstance(value, int) else 1


def _encode_for_people(image: Image.Image) -> bytes:
    """Its longer side has COVER_SIDE pixels at most; it is never enlarged."""
    longer = max(image.size)
    if longer > COVER_SIDE:
        width, height = (max(1, round(each * COVER_SIDE / longer)) for each in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=80)  # a WebP is a fifth smaller and takes 15 times
    return encoded.getvalue()


def _refuse_dimensions(image: Image.Image) -> None:
    width, height = image.size
    most = MAX_JPEG_PIXELS if image.format in _JPEG_FORMATS else MAX_IMAGE_PIXELS
    if width < 1 or height < 1 or width * height > most:
        raise ImageRefused(f"the image has {width} x {height} pixels; accepted are 1 to {most:,}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageRefused(
            f"the image has {width} x {height} pixels, a strip of which the model would see a few "
            f"pixels; crop it to at most {MAX_ASPECT_RATIO}:1, or leave the image out"
        )


def _refuse_slow_coding(image: Image.Image, data: bytes) -> None:
    if image.format in _JPEG_FORMATS and _count_jpeg_scans(data) > _MAX_JPEG_SCANS:
        raise ImageRefused(
            f"the image has more than {_MAX_JPEG_SCANS} scans; save it as an ordinary JPEG"
        )
    if image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTHS:
        raise ImageRefused("the image is a run-length coded BMP; save it as a PNG")


# A segment's marker; it also ends a scan's coded data. Stuffed 0xFF and restarts are no markers.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_END_OF_JPEG, _START_OF_SCAN = 0xD9, 0xDA


def _count_jpeg_scans(data: bytes) -> int:
    """How many passes over the pixels a decoder makes; stops counting above the limit."""
    num_scans = position = 0
    while num_scans <= _MAX_JPEG_SCANS and (found := _JPEG_MARKER.search(data, position)):
        marker = data[found.end() - 1]
        if marker == _END_OF_JPEG:
            break
        num_scans += marker == _START_OF_SCAN
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return num_scans


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, on white where transparent. Strip by strip, which takes a quarter of the memory."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS_AT_ONCE):
        bottom = min(top + _ROWS_AT_ONCE, image.height)
        flat.paste(_flatten_strip(image.crop((0, top, image.width, bottom))), (0, top))
    return flat


def _flatten_strip(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit gray to white instead of scaling it
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    return image.convert("RGB")


def _letterbox(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, color=_BORDER)


def _without_letterbox(image: Image.Image) -> Image.Image:
    """The image without bars in the border's color, if two of them face each other alike: what
    `_letterbox` adds, and a cover hardly has.
    """
    plain = Image.new("RGB", image.size, _BORDER)
    bands = ImageChops.difference(image, plain).split()
    largest = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    box = largest.point(lambda value: 255 * (value > _BORDER_TOLERANCE)).getbbox()
    if box is None:
        return image  # it shows nothing
    left, top = box[0], box[1]
    right, bottom = image.width - box[2], image.height - box[3]
    across = min(left, right) if abs(left - right) <= 1 else 0
    down = min(top, bottom) if abs(top - bottom) <= 1 else 0
    if bool(across) == bool(down):  # a letterbox has bars on two sides
        return image
    return image.crop((across, down, image.width - across, image.height - down))


def _encode(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=95, subsampling=0)
    return encoded.getvalue()
