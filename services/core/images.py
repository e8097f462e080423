"""One picture in, one picture out: what is accepted, and how it is prepared.

Every cover is prepared once, to a square the model's image grid contains, letterboxed. Then no
image processor has anything left to resize (torchvision and Pillow resize differently), no picture
is padded to the size of its batch-mates, and a score is the same wherever it is computed.
"""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

from services.core.errors import ImageRefused

DEFAULT_IMAGE_SIZE = 336
MAX_IMAGE_BYTES = 20 * 1024 * 1024
MAX_IMAGE_PIXELS = 50_000_000
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# The mean color of CLIP's training pictures: after normalization the border is about zero.
_BORDER = (122, 116, 104)

# What Pillow raises on files that are cut, corrupt or hostile, one decoder or another.
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

    Raises ImageRefused for an empty, oversized, broken or unaccepted file; the header is judged
    before any pixel is decoded.
    """
    if not data:
        raise ImageRefused("the picture is an empty file; replace it or leave the picture out")
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageRefused(
            f"the picture has {len(data):,} bytes, more than {MAX_IMAGE_BYTES:,}; shrink it"
        )
    try:
        with Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS) as opened:
            _refuse_dimensions(opened.width, opened.height)
            opened.draft("RGB", (2 * size, 2 * size))
            upright = ImageOps.exif_transpose(opened)
            return _encode(_letterbox(_flatten(upright), size))
    except UnidentifiedImageError as error:  # its message names a memory address
        raise ImageRefused(
            f"the file is not a picture; accepted are {', '.join(ACCEPTED_FORMATS)}"
        ) from error
    except _DECODER_ERRORS as error:
        raise ImageRefused(
            f"the picture cannot be decoded ({type(error).__name__}: {str(error)[:200]}); "
            "replace it"
        ) from error


def blank_image(size: int = DEFAULT_IMAGE_SIZE) -> bytes:
    """A prepared picture that shows nothing, for the ablation "the model sees no cover"."""
    return _encode(Image.new("RGB", (size, size), _BORDER))


def _refuse_dimensions(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_IMAGE_PIXELS:
        raise ImageRefused(
            f"the picture has {width} x {height} pixels; accepted are 1 to {MAX_IMAGE_PIXELS:,}"
        )


def _flatten(image: Image.Image) -> Image.Image:
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
