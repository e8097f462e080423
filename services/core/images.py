"""Prepares an image for the model: which files are accepted, and what becomes of them.

Every cover is prepared once: letterboxed to a square of the model's image grid. So no image
processor resizes it (torchvision and Pillow resize differently), no image is padded to the size of
others in its batch, and a score is the same wherever it is computed.

Files may come from strangers. So their cost is bounded before any pixel is decoded: format, bytes,
pixels, reads and decoder passes. Only the first frame of an animation is used. Images in
preparation hold about 400 MB at most in any number of threads, since large ones are prepared one
at a time.
"""

import contextlib
import io
import re
import threading
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from services.core.errors import ImageRefused

DEFAULT_IMAGE_SIZE = 336
MAX_IMAGE_BYTES = 20 * 1024 * 1024
# A JPEG is decoded at reduced size. Other formats hold every pixel in memory, some several times.
MAX_JPEG_PIXELS = 50_000_000
MAX_IMAGE_PIXELS = 25_000_000
LARGE_PIXELS = 4_000_000
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: what Pillow calls a JPEG with further images behind it

# The mean color of CLIP's training images: after normalization the border is about zero.
_BORDER = (122, 116, 104)

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

# What Pillow's decoders raise on truncated, corrupt or hostile files.
_DECODER_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    EOFError,
    TypeError,
    OverflowError,
    MemoryError,
)


def prepare_image(data: bytes, size: int = DEFAULT_IMAGE_SIZE) -> bytes:
    """A JPEG of `size` x `size` pixels: first frame, upright, on white where transparent,
    letterboxed. The same bytes in give the same bytes out.

    Raises ImageRefused for an empty, oversized, broken or unaccepted file. The header is checked
    before any pixel is decoded.
    """
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
            return _prepare(data, size)
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


def thumbnail(prepared: bytes, width: int) -> bytes:
    """A prepared image for people to look at: WebP, at most `width` pixels wide."""
    with contextlib.closing(_open(prepared)) as opened:
        opened.draft("RGB", (width, width))
        opened.thumbnail((width, width), Image.Resampling.LANCZOS)
        encoded = io.BytesIO()
        opened.convert("RGB").save(encoded, format="WEBP", quality=80)
        return encoded.getvalue()


def blank_image(size: int = DEFAULT_IMAGE_SIZE) -> bytes:
    """A prepared image that shows nothing, for the ablation "the model sees no cover"."""
    return _encode(Image.new("RGB", (size, size), _BORDER))


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


def _prepare(data: bytes, size: int) -> bytes:
    # Closing frees the pixels at once, even if a traceback still refers to the image.
    with contextlib.closing(_open(data)) as opened:
        opened.draft("RGB", (2 * size, 2 * size))
        ImageOps.exif_transpose(opened, in_place=True)
        return _encode(_letterbox(_flatten(opened), size))


def _refuse_dimensions(image: Image.Image) -> None:
    width, height = image.size
    most = MAX_JPEG_PIXELS if image.format in _JPEG_FORMATS else MAX_IMAGE_PIXELS
    if width < 1 or height < 1 or width * height > most:
        raise ImageRefused(f"the image has {width} x {height} pixels; accepted are 1 to {most:,}")


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


def _letterbox(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color=_BORDER)


def _encode(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=95, subsampling=0)
    return encoded.getvalue()
