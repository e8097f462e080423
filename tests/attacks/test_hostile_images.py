"""The corpus of `msr bench hostile`, through the function that everything calls; then what it found
in files of its own.
"""

import io
import subprocess
import sys
import threading

import pytest
from PIL import Image

from benchmarks.attacks import formats, images
from benchmarks.faults.supervised_process import ROOT
from services.core.errors import ImageRefused
from services.core.images import MAX_IMAGE_PIXELS, prepare_image

# Where it serves these are not shown (core/images.py); pytest would collect 130,000.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"
)

CORPUS = images.corpus()
KINDS = sorted({(image.name.split()[0], image.heavy) for image in CORPUS})


def resident_and_peak() -> tuple[int, int]:
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]


@pytest.fixture
def resident() -> int:
    """Holds what is resident now; the peak of this process begins anew from there."""
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    return resident_and_peak()[0]


def prepared(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(prepare_image(data, 56)))


def prepared_or_refused(data: bytes) -> tuple[Image.Image, str]:
    try:
        return prepared(data), ""
    except ImageRefused as error:
        return Image.new("RGB", (1, 1)), str(error)


def test_the_corpus_has_500_images_of_different_names():
    assert len({image.name for image in CORPUS}) == len(CORPUS) == 500


@pytest.mark.parametrize(
    ("kind", "heavy"),
    [pytest.param(*each, marks=[pytest.mark.slow] if each[1] else []) for each in KINDS],
)
def test_every_hostile_image_is_prepared_or_refused_with_a_reason(kind: str, heavy: bool):
    for image in CORPUS:
        if (image.name.split()[0], image.heavy) != (kind, heavy):
            continue
        prepared, reason = prepared_or_refused(image.build())
        accepted = (prepared.format, prepared.size) == ("JPEG", (56, 56))
        assert len(reason) > 20 or accepted, image.name


def test_the_dearest_image_that_is_accepted_takes_no_more_than_its_bound(resident: int):
    side = int(MAX_IMAGE_PIXELS**0.5)
    options = {"lossless": True, "quality": 0, "method": 0}
    data = formats.plain("WEBP", "RGBA", side, **options)
    prepare_image(data)

    assert resident_and_peak()[1] - resident < 600 * 1024 * 1024


def test_large_images_wait_for_one_another(resident: int):
    data = formats.png(5000, 5000, formats.RGBA)
    threads = [threading.Thread(target=prepare_image, args=(data,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert resident_and_peak()[1] - resident < 600 * 1024 * 1024


def test_a_file_in_millions_of_segments_is_left_before_they_are_read():
    jpeg = formats.ordinary("JPEG")
    exif = formats.segment(0xE1, b"Exif\0\0x") * 1_800_000  # each is appended to all before it

    with pytest.raises(ImageRefused, match="more than 100,000 parts"):
        prepare_image(formats.with_segments(jpeg, exif))


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused():
    with pytest.raises(ImageRefused, match="more than 40 scans"):
        prepare_image(formats.many_scans(64, 64, 35))
    assert prepared(formats.many_scans(64, 64, 34)).size == (56, 56)


def test_what_looks_like_scans_behind_the_end_of_a_jpeg_is_not_counted():
    assert prepared(formats.ordinary("JPEG") + b"\xff\xda\0\x02" * 500).size == (56, 56)


def test_a_bitmap_of_run_lengths_is_refused():
    with pytest.raises(ImageRefused, match="run-length"):
        prepare_image(formats.bmp(9, 9, bits=8, compression=1, palette=bytes(1024)))


def test_an_image_of_thousands_of_odd_tags_writes_no_line_for_each():
    code = (
        "from benchmarks.attacks.formats import chunk, overlapping_exif, png\n"
        "from services.core.images import prepare_image\n"
        "prepare_image(png(9, 9, before=chunk(b'eXIf', overlapping_exif(9_000, 9_000))))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )

    assert ended.stderr == ""


def test_transparency_lies_on_white_in_an_image_of_many_strips():
    encoded = io.BytesIO()
    Image.new("RGBA", (1000, 1000), (0, 0, 0, 0)).save(encoded, "PNG")

    assert prepared(encoded.getvalue()).getextrema() == ((255, 255),) * 3
