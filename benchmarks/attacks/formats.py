"""Image files by hand, byte by byte, so that they can say what no encoder would."""

import io
import struct
import zlib
from typing import Any

from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The formats that are accepted.
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}


def ordinary(
    kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **options: Any
) -> bytes:
    """What Pillow's own encoder writes of an image that is no single color."""
    ramp = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_180), ramp))
    if mode == "I;16":
        image = ramp.convert("I;16")
    elif mode != "RGB":
        image = image.convert(mode)
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def plain(kind: str, mode: str, side: int, **options: Any) -> bytes:
    """What Pillow's own encoder writes of a square of one color."""
    encoded = io.BytesIO()
    Image.new(mode, (side, side)).save(encoded, kind, **options)
    return encoded.getvalue()


# --- PNG -----------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes = b"", *, crc: int | None = None) -> bytes:
    """A chunk of a PNG; its checksum is right unless given."""
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(
    width: int,
    height: int,
    color: int = RGB,
    depth: int = 8,
    *,
    before: bytes = b"",
    pixels: bytes | None = None,
    interlaced: int = 0,
) -> bytes:
    """A PNG that claims this size; its pixels are as many zeros as that takes, unless given.

    `before` are chunks between the header and the pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    if pixels is None:
        row = 1 + (width * depth * _CHANNELS[color] + 7) // 8
        # An interlaced image has some rows more, each with its filter byte.
        pixels = zeros(height * row + (height * row // 2 if interlaced else 0))
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", pixels), chunk(b"IEND")]
    return PNG_SIGNATURE + b"".join(parts)


def zeros(number: int) -> bytes:
    """So many zero bytes, deflated: a thousandth of them."""
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    sizes = [len(block)] * (number // len(block)) + [number % len(block)]
    return b"".join(packer.compress(block[:size]) for size in sizes) + packer.flush()


# --- JPEG ----------------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, segments: bytes) -> bytes:
    """A JPEG with more segments after its first marker."""
    return jpeg[:2] + segments + jpeg[2:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its coded data has."""
    start = _find_frame(jpeg)
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


def with_frame_field(jpeg: bytes, offset: int, value: int) -> bytes:
    """A JPEG with one byte of its frame header changed (4: bits, 9: number of components)."""
    start = _find_frame(jpeg)
    return jpeg[: start + offset] + bytes((value,)) + jpeg[start + offset + 1 :]


def _find_frame(jpeg: bytes) -> int:
    return next(at for at in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if at >= 0)


def many_scans(width: int, height: int, num_scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan, each time for a pass over all pixels."""
    encoded = io.BytesIO()
    Image.new("L", (width, height)).save(encoded, "JPEG", progressive=True)
    jpeg = encoded.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    tables = jpeg.rindex(b"\xff\xc4", 0, last)
    return jpeg[:-2] + jpeg[tables:-2] * num_scans + b"\xff\xd9"


# --- the others ----------------------------------------------------------------------------------


def gif(
    width: int,
    height: int,
    *,
    before: bytes = b"",
    frame: tuple[int, int, int, int] | None = None,
    codes: bytes = b"\x02\x02\x44\x01\x00",
) -> bytes:
    """A GIF with a screen of this size, a frame (left, top, width, height) and its coded data."""
    left, top, frame_width, frame_height = frame or (0, 0, width, height)
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes((0, 0, 0, 255, 255, 255))
    image = b"," + struct.pack("<HHHHB", left, top, frame_width, frame_height, 0) + codes
    return b"GIF89a" + screen + before + image + b";"


def bmp(
    width: int,
    height: int,
    *,
    bits: int = 24,
    compression: int = 0,
    colors: int = 0,
    palette: bytes = b"",
    pixels: bytes = b"",
    header_size: int = 40,
    planes: int = 1,
) -> bytes:
    """A Windows bitmap of these claims."""
    info = struct.pack(
        "<IiiHHIIiiII",
        header_size, width, height, planes, bits, compression, 0, 2835, 2835, colors, 0,
    )  # fmt: skip
    offset = 14 + len(info) + len(palette)
    return (
        b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + palette + pixels
    )


def webp_chunks(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    """A RIFF container of WebP chunks; its size is right unless given."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    size = 4 + len(body) if size is None else size
    return b"RIFF" + struct.pack("<I", size) + b"WEBP" + body


def webp_canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The chunk in which an extended WebP claims its size."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes((flags, 0, 0, 0)) + sides


def tiff(*entries: tuple[int, int, int, int], next_directory: int = 0, tail: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; an entry is (tag, type, count, value or offset).

    The bytes after the header are also what EXIF holds.
    """
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + directory + struct.pack("<I", next_directory) + tail


def overlapping_exif(num_tags: int, num_bytes: int) -> bytes:
    """EXIF each of whose tags claims all of the file."""
    entries = [(tag, 1, num_bytes, 8) for tag in range(num_tags)]
    return tiff(*entries, tail=bytes(max(0, num_bytes - 12 * num_tags)))


def animation(kind: str, number: int, side: int = 8) -> bytes:
    """An animated file of so many frames, all different."""
    first, *rest = [
        Image.new("RGB", (side, side), (index % 256, index // 256, 0)) for index in range(number)
    ]
    encoded = io.BytesIO()
    first.save(encoded, kind, save_all=True, append_images=rest, duration=10, loop=0)
    return encoded.getvalue()
