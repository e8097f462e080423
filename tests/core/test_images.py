"""Images: what is refused and why, and that preparing is deterministic and letterboxed."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from services.core.errors import ImageRefused
from services.core.images import (
    COVER_SIDE,
    MAX_IMAGE_BYTES,
    ImageForm,
    ImageShape,
    blank_image,
    blank_like,
    prepare_cover,
    prepare_image,
    thumbnail,
)

SHAPES = (ImageShape(336, 336, 1178), ImageShape(336, 504, 1466), ImageShape(504, 336, 1478))
GRID = ImageForm(336, SHAPES, "llava_next")


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


# --- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cover", "shape"),
    [((600, 900), (504, 336)), ((900, 600), (336, 504)), ((800, 800), (336, 336))],
    ids=["poster", "photograph", "square"],
)
def test_a_cover_takes_the_shape_that_shows_most_of_it_for_a_token(cover, shape):
    prepared = opened(prepare_cover(an_image(*cover), GRID).image)

    assert prepared.size == shape[::-1]
    assert prepared.getpixel((1, 1)) == (254, 0, 0)


def test_a_cover_that_is_smaller_than_all_shapes_takes_the_cheapest_one():
    assert GRID.shape_for(60, 90) == (336, 336)


def test_a_shape_is_chosen_for_the_image_upright():
    image = Image.new("RGB", (900, 600), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)

    prepared = prepare_cover(file.getvalue(), GRID)

    assert opened(prepared.image).size == (336, 504)
    assert opened(prepared.shown).size == (341, 512)


def test_a_square_form_prepares_what_it_always_did():
    for data in (an_image(400, 600), an_image(20, 30, "RGBA"), an_image(900, 500, kind="JPEG")):
        assert prepare_cover(data, ImageForm(56)).image == prepare_image(data, 56)


def a_phone_image() -> bytes:
    """Red above blue once it is turned as its EXIF asks, which has other tags too."""
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 30, 40))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x011A: (72, 1), 0x9003: "2020:01:01 00:00:00"})
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of each broken tag
def test_an_image_with_a_broken_tag_is_used_and_turned_by_what_is_whole():
    whole = a_phone_image()
    start = whole.index(b"Exif\0\0") + 6
    end = start + len(Image.open(io.BytesIO(whole)).getexif().tobytes()) - 6
    turned = []
    for position in range(start, end):
        for value in (5, 255):
            broken = bytearray(whole)
            broken[position] = value
            # Whatever became of the tag, the pixels are whole.
            shown = opened(prepare_cover(bytes(broken), ImageForm(56)).shown)
            red, _, blue = shown.getpixel((15, 5))
            turned.append(shown.size == (40, 60) and red > blue)
    assert sum(turned) > 0.7 * len(turned)  # of the others, the orientation itself is broken


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(orientation: int):
    image = Image.effect_noise((24, 40), 90).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)

    turned = ImageOps.exif_transpose(Image.open(file))
    plain = io.BytesIO()
    Image.fromarray(np.asarray(turned)).save(plain, "PNG")
    assert prepare_cover(file.getvalue(), GRID) == prepare_cover(plain.getvalue(), GRID)


@pytest.mark.parametrize("form", [ImageForm(56), GRID])
def test_a_form_is_read_back_from_the_definition_of_the_items(form: ImageForm):
    written = json.loads(json.dumps(form.to_definition()))

    assert ImageForm.from_definition(written) == form


def test_the_definition_of_a_square_is_that_of_earlier_versions():
    assert ImageForm(336).to_definition() == {"image_size": 336}


def test_a_blank_image_has_the_shape_of_what_it_replaces():
    shape = prepare_cover(an_image(600, 900), GRID).image

    assert opened(blank_like(shape)).size == (336, 504)
    assert blank_like(prepare_image(an_image(), 56)) == blank_image(56)


# --- strips --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(4000, 10), (1, 3000), (2101, 105)])
def test_a_strip_is_refused_with_what_to_do(width: int, height: int):
    with pytest.raises(ImageRefused, match=f"{width} x {height} .*; crop it to at most 20:1"):
        prepare_image(an_image(width, height))


def test_a_banner_is_none():
    assert opened(prepare_image(an_image(2000, 100), 336)).size == (336, 336)


# --- for people ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [ImageForm(56), ImageForm(336), GRID])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_people_are_shown_the_cover_in_its_own_shape(form: ImageForm, kind: str):
    shown = opened(prepare_cover(an_image(1200, 1800, kind=kind), form).shown)

    assert shown.size == (341, COVER_SIDE)
    assert shown.getpixel((0, 0))[0] > 250


def test_a_small_cover_is_not_enlarged_for_people():
    assert opened(prepare_cover(an_image(40, 20), ImageForm(336)).shown).size == (40, 20)


@pytest.mark.parametrize(("width", "height"), [(40, 60), (60, 40), (47, 60), (60, 41), (30, 60)])
@pytest.mark.parametrize("color", ["black", "white", "red"])
def test_a_letterbox_is_cut_off_a_prepared_image(width: int, height: int, color: str):
    file = io.BytesIO()
    Image.new("RGB", (width * 10, height * 10), color).save(file, "PNG")

    shown = opened(thumbnail(prepare_image(file.getvalue()), 320, is_prepared=True))

    assert shown.width / shown.height == pytest.approx(width / height, rel=0.02)


def test_what_is_no_letterbox_is_left():
    border = opened(blank_image(8)).getpixel((0, 0))
    framed = Image.new("RGB", (336, 336), border)
    framed.paste("red", (40, 40, 296, 296))  # a cover with a frame of its own
    left = Image.new("RGB", (336, 336), "red")
    left.paste(border, (0, 0, 60, 336))
    for image in (framed, left, Image.new("RGB", (336, 336), border)):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)

        assert opened(thumbnail(file.getvalue(), 320, is_prepared=True)).size == (320, 320)
