"""Images: what is refused and why, and that preparing is deterministic and letterboxed."""

import io
import struct
import zlib

import pytest
from PIL import Image

from services.core.errors import ImageRefused
from services.core.images import MAX_IMAGE_BYTES, blank_image, prepare_image


def an_image(width: int = 40, height: int = 20, mode: str = "RGB", kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), "red" if mode != "I;16" else 65_535).save(file, kind)
    return file.getvalue()


def a_png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_wide_image_is_letterboxed_into_the_square():
    prepared = opened(prepare_image(an_image(40, 20), 56))

    assert prepared.size == (56, 56)
    assert prepared.getpixel((28, 28)) == (254, 0, 0)
    assert prepared.getpixel((28, 2)) == opened(blank_image(56)).getpixel((0, 0))


def test_the_same_bytes_give_the_same_bytes():
    assert prepare_image(an_image()) == prepare_image(an_image())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16"])
def test_every_color_mode_becomes_rgb(mode: str):
    assert opened(prepare_image(an_image(mode=mode), 56)).mode == "RGB"


def test_transparency_lies_on_white():
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(file, "PNG")

    assert opened(prepare_image(file.getvalue(), 56)).getpixel((28, 28)) == (255, 255, 255)


def test_a_phone_image_is_turned_upright():
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)

    prepared = opened(prepare_image(file.getvalue(), 56))

    assert prepared.getpixel((28, 2))[0] > 200
    assert prepared.getpixel((2, 28))[0] < 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"not an image", "not an image"),
        (an_image(300, 300)[:80], "cannot be decoded"),
        (b"\x89PNG" + b"\0" * MAX_IMAGE_BYTES, "bytes"),
        (a_png_claiming(60_000, 60_000), "pixels|Decompression"),
        (a_png_claiming(9_000, 9_000), "pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
    ids=["empty", "text", "cut", "too many bytes", "bomb", "too many pixels", "svg"],
)
def test_an_image_that_cannot_be_used_is_refused_with_the_reason(data: bytes, message: str):
    with pytest.raises(ImageRefused, match=message):
        prepare_image(data)


def test_the_reason_names_no_memory_address_so_that_manifests_stay_equal():
    with pytest.raises(ImageRefused) as refused:
        prepare_image(b"not an image")

    assert "0x" not in str(refused.value)
