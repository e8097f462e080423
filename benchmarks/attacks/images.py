"""500 hostile image files, each with a name that says what it tries.

Some are images all the same (a GIF that is a script too still shows a GIF): what counts is that
each is either prepared or refused with a reason, in bounded time and memory. Nothing is kept on
disk; a file is built when it is asked for, the same bytes every time.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from random import Random

from benchmarks.attacks import disguises, formats
from benchmarks.attacks.formats import bmp, chunk, gif, ordinary, png, segment, tiff, webp_chunks
from benchmarks.attacks.hostile_image import HostileImage, of
from services.core.images import MAX_IMAGE_BYTES

NUM_IMAGES = 500
_LARGEST = 65_535
_NEARLY_ALL_BYTES = MAX_IMAGE_BYTES - 100_000


@cache
def corpus() -> tuple[HostileImage, ...]:
    """All of them, in one order."""
    found = [
        *_bombs(),
        *_endless_structures(),
        *_metadata(),
        *_animations(),
        *_colors(),
        *_sides(),
        *disguises.polyglots(),
        *disguises.documents(),
        *disguises.lies(),
        *disguises.other_formats(),
        *_truncated(),
    ]
    return (*found, *_flipped(NUM_IMAGES - len(found)))


# --- more than it seems --------------------------------------------------------------------------


def _bombs() -> Iterator[HostileImage]:
    """Few bytes that ask for gigabytes, and the dearest ones that are accepted."""
    jpeg = ordinary("JPEG")
    for side in (_LARGEST, 60_000, 13_000, 5_001):
        tiny = partial(png, side, side, pixels=b"x\x9cc\0\0\0\x01\0\x01")
        yield HostileImage(f"png bomb: claims {side} squared", tiny)
        yield HostileImage(
            f"jpeg bomb: claims {side} squared", of(formats.resized_jpeg(jpeg, side, side))
        )
        yield HostileImage(f"gif bomb: claims {side} squared", of(gif(side, side)))
        yield HostileImage(f"bmp bomb: claims {side} squared", of(bmp(side, side)))
        canvas = formats.webp_canvas(side, side)
        still = webp_chunks(canvas, (b"VP8 ", ordinary("WEBP")[20:]))
        yield HostileImage(f"webp bomb: claims {side} squared", of(still))
    yield HostileImage(
        "gif bomb: a frame outside of its screen", of(gif(9, 9, frame=(9, 9, 65_000, 65_000)))
    )
    yield HostileImage("bmp bomb: a height of -2^31", of(bmp(4, -(2**31))))
    dear: dict[str, Callable[[], bytes]] = {
        "rgba": partial(png, 5000, 5000, formats.RGBA),
        "rgba of 16 bits": partial(png, 5000, 5000, formats.RGBA, 16),
        "rgba interlaced": partial(png, 5000, 5000, formats.RGBA, interlaced=1),
        "gray of 16 bits": partial(png, 5000, 5000, formats.GRAY, 16),
        "rgba turned by exif": partial(
            png, 5000, 5000, formats.RGBA, before=chunk(b"eXIf", tiff((0x0112, 3, 1, 6)))
        ),
        "palette of one bit, transparent": partial(
            png,
            5000,
            5000,
            formats.PALETTE,
            1,
            before=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\0"),
        ),
        "webp of 34 bytes": partial(
            formats.plain, "WEBP", "RGBA", 5000, lossless=True, quality=0, method=0
        ),
        "gif": partial(formats.plain, "GIF", "P", 5000, transparency=0),
        "jpeg of 49 million pixels": partial(
            formats.plain, "JPEG", "CMYK", 7000, progressive=True, subsampling=0
        ),
        "pixels that go on after the last row": lambda: png(40, 40, pixels=formats.zeros(2**30)),
        "jpeg of 5,000 scans": partial(formats.many_scans, 6000, 6000, 5_000),
        "jpeg of 40 scans": partial(formats.many_scans, 7000, 7000, 34),
    }
    for name, build in dear.items():
        yield HostileImage(f"as dear as accepted: {name}", build, heavy=True)


def _endless_structures() -> Iterator[HostileImage]:
    """Files that are headers all through: readers go over them in Python, or copy at each step."""
    pixels, screen = ordinary("JPEG")[2:], ordinary("GIF")[:13]
    head = png(10, 10)[:33]
    endless = {
        "jpeg of exif segments of one byte": (b"\xff\xd8", segment(0xE1, b"Exif\0\0x"), pixels),
        "jpeg of empty application segments": (b"\xff\xd8", segment(0xE3, b""), pixels),
        "jpeg of comments": (b"\xff\xd8", segment(0xFE, b"x"), pixels),
        "jpeg of quantization tables": (b"\xff\xd8", segment(0xDB, bytes(65)), pixels),
        "jpeg of fill bytes": (b"\xff\xd8", b"\xff", pixels),
        "jpeg of junk between segments": (b"\xff\xd8", b"\0", pixels),
        "gif of comment blocks of one byte": (screen + b"!\xfe", b"\x01a", b"\0"),
        "gif of empty extensions": (screen, b"!\0\0", b""),
        "gif of application blocks": (screen + b"!\xff\x0bNETSCAPE2.0", b"\x01\0", b"\0"),
        "png of unknown chunks": (head, chunk(b"abCd"), chunk(b"IEND")),
        "png of empty pixel chunks": (head, chunk(b"IDAT"), chunk(b"IEND")),
        "png of texts": (head, chunk(b"tEXt", b"k\0v"), chunk(b"IEND")),
        "webp of unknown chunks": (webp_chunks(size=_NEARLY_ALL_BYTES), b"abcd\0\0\0\0", b""),
        "bmp of runs of one pixel": (bmp(5000, 5000, bits=8, compression=1), b"\x01\x01", b""),
        "bmp of jumps by a row": (bmp(5000, 5000, bits=8, compression=1), b"\0\x02\0\x01", b""),
        "bmp of ends of rows": (bmp(4999, 4999, bits=4, compression=2), b"\x01\x01\0\0", b""),
    }
    for name, (start, part, end) in endless.items():
        build = partial(_repeated, start, part, end)
        yield HostileImage(f"endless: {name}", build, heavy=True)
    yield HostileImage(
        "too large: one byte more than accepted", lambda: bytes(MAX_IMAGE_BYTES + 1), True
    )
    yield HostileImage(
        "too large: a png with a tail", lambda: png(9, 9) + bytes(MAX_IMAGE_BYTES), True
    )


def _repeated(start: bytes, part: bytes, end: bytes) -> bytes:
    return start + part * ((_NEARLY_ALL_BYTES - len(start) - len(end)) // len(part)) + end


def _metadata() -> Iterator[HostileImage]:
    """Profiles, EXIF and texts that are huge, compressed, looping or wrong."""
    jpeg, ping = ordinary("JPEG"), ordinary("PNG")
    bomb = formats.zeros(300 * 1024 * 1024)
    in_png = {
        "a profile that unpacks to 300 MB": chunk(b"iCCP", b"p\0\0" + bomb),
        "a text that unpacks to 300 MB": chunk(b"zTXt", b"k\0\0" + bomb),
        "an international text that unpacks to 300 MB": chunk(b"iTXt", b"k\0\x01\0\0\0" + bomb),
        "a thousand texts of a megabyte": chunk(b"zTXt", b"k\0\0" + formats.zeros(2**20)) * 1000,
        "a text of 10 MB": chunk(b"tEXt", b"k\0" + b"x" * 10_000_000),
        "a profile of rubbish": chunk(b"iCCP", b"p\0\0" + formats.zeros(3000)),
        "a profile without an end": chunk(b"iCCP", b"p"),
        "an unknown compression": chunk(b"zTXt", b"k\0\x07abc"),
        "no gamma": chunk(b"gAMA", bytes(4)),
        "a gamma cut short": chunk(b"gAMA", b"\0"),
        "a resolution cut short": chunk(b"pHYs", b"\0\0"),
        "white points of zero": chunk(b"cHRM", bytes(32)),
        "an unknown rendering intent": chunk(b"sRGB", b"\xff"),
        "a transparency cut short": chunk(b"tRNS", b"\0"),
        "a transparency too long": chunk(b"tRNS", bytes(900)),
        "a palette it should not have": chunk(b"PLTE", bytes(769)),
        "a second header": ping[8:33],
        "a wrong checksum": chunk(b"tEXt", b"k\0v", crc=1),
        "a chunk of 4 GB": b"\xff\xff\xff\xfftEXtk\0v",
        "a chunk without a name": chunk(b"\0\0\0\0", b""),
        "an orientation of 77": chunk(b"eXIf", tiff((0x0112, 3, 1, 77))),
        "an orientation that is a text": chunk(b"eXIf", tiff((0x0112, 2, 4, 0x36363636))),
        "exif of 65,535 overlapping tags": chunk(
            b"eXIf", formats.overlapping_exif(65_535, 1_000_000)
        ),
        "exif whose directory is its next one": chunk(
            b"eXIf", tiff((0x0112, 3, 1, 1), next_directory=8)
        ),
        "exif in hexadecimal that is none": chunk(b"tEXt", b"Raw profile type exif\0\n\n\nzz"),
        "xmp that turns it nine ways": chunk(
            b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="9"'
        ),
    }
    for name, chunks in in_png.items():
        yield HostileImage(f"png with {name}", of(ping[:33] + chunks + ping[33:]))
    exif = b"Exif\0\0"
    in_jpeg = {
        "exif of overlapping tags": segment(0xE1, exif + formats.overlapping_exif(5_000, 5_000)),
        "exif whose directory is its next one": segment(
            0xE1, exif + tiff((0x8769, 4, 1, 8), next_directory=8)
        ),
        "exif that leads outside": segment(0xE1, exif + tiff((0x0112, 3, 2, 0xFFFFFFF0))),
        "exif of no byte order": segment(0xE1, exif + b"XX*\0\x08\0\0\0"),
        "exif cut in its first tag": segment(0xE1, exif + tiff((0x0112, 3, 1, 6))[:15]),
        "exif that is empty": segment(0xE1, exif),
        "an orientation of two values": segment(0xE1, exif + tiff((0x0112, 3, 2, 0x00060006))),
        "a resolution of one over zero": segment(
            0xE1, exif + tiff((0x011A, 5, 1, 26), tail=struct.pack("<II", 1, 0))
        ),
        "255 segments of one profile": b"".join(
            segment(0xE2, b"ICC_PROFILE\0" + bytes((index, 255)) + bytes(60_000))
            for index in range(1, 256)
        ),
        "a profile whose parts are missing": segment(0xE2, b"ICC_PROFILE\0\x07\x09abc"),
        "a profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
        "further images that are none": segment(0xE2, b"MPF\0" + tiff((0xB001, 4, 1, 60_000))),
        "further images at its own start": segment(
            0xE2, b"MPF\0" + tiff((0xB001, 4, 1, 2), (0xB002, 7, 32, 38), tail=bytes(32))
        ),
        "resources of 4 GB": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
        "resources cut short": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        "an empty jfif": segment(0xE0, b"JFIF"),
        "an empty adobe segment": segment(0xEE, b"Adobe"),
        "xmp of 60 kB": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000),
        "a comment with a script": segment(0xFE, b"<script>alert(1)</script>"),
        "a length below two": b"\xff\xe3\0\0",
        "a segment longer than the file": b"\xff\xe3\xff\xff",
        "restart markers where none belong": b"\xff\xd0\xff\xd7" * 50,
    }
    for name, segments in in_jpeg.items():
        yield HostileImage(f"jpeg with {name}", of(formats.with_segments(jpeg, segments)))
    still = ordinary("WEBP")[12:]
    still_chunk = (b"VP8 ", still[8:])
    for name, flag, extra in (
        ("a profile of 5 MB", 0x20, (b"ICCP", bytes(5_000_000))),
        ("exif of overlapping tags", 0x08, (b"EXIF", formats.overlapping_exif(65_535, 1_000_000))),
        ("exif that is rubbish", 0x08, (b"EXIF", b"rubbish")),
        ("xmp of 5 MB", 0x04, (b"XMP ", b"<" * 5_000_000)),
    ):
        held = webp_chunks(formats.webp_canvas(64, 48, flag), still_chunk, extra)
        yield HostileImage(f"webp with {name}", of(held))


def _animations() -> Iterator[HostileImage]:
    """Thousands of frames, or frames that are claimed."""
    for kind, number in (("GIF", 3_000), ("PNG", 2_000), ("WEBP", 1_000)):
        build = partial(formats.animation, kind, number)
        yield HostileImage(f"{kind.lower()} of {number:,} frames", build, heavy=True)
    still = ordinary("PNG")
    for name, control in (
        ("2^31 frames", struct.pack(">II", 2**31 - 1, 0)),
        ("no frames", bytes(8)),
        ("frames without a number", b"\0"),
    ):
        animated = still[:33] + chunk(b"acTL", control) + still[33:]
        yield HostileImage(f"png that claims {name}", of(animated))
    outside = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 60_000, 60_000, 9_000, 9_000, 1, 1, 0, 0))
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    yield HostileImage(
        "png whose frame is outside of it", of(still[:33] + control + outside + still[33:])
    )
    yield HostileImage("gif without a frame", of(ordinary("GIF")[:13] + b";"))
    yield HostileImage("gif without an end", of(gif(9, 9)[:-2]))
    frame = (b"ANMF", bytes(16) + b"VP8 " + struct.pack("<I", 2**31))
    animated = webp_chunks(formats.webp_canvas(64, 48, 2), (b"ANIM", bytes(6)), frame)
    yield HostileImage("webp whose frame claims 2 GB", of(animated))


def _colors() -> Iterator[HostileImage]:
    """Pixels that are no ordinary red, green and blue."""
    for mode in ("RGBA", "LA", "L", "P", "1", "I;16"):
        yield HostileImage(f"png in mode {mode}", partial(ordinary, "PNG", mode))
    for mode in ("CMYK", "L"):
        yield HostileImage(f"jpeg in mode {mode}", partial(ordinary, "JPEG", mode))
    few = chunk(b"PLTE", bytes((255, 0, 0)))
    ones = zlib.compress(b"\0" + b"\xff" * 40 + (b"\0" + b"\xff" * 40) * 39)
    yield HostileImage(
        "png whose pixels are past its palette", of(png(40, 40, 3, before=few, pixels=ones))
    )
    yield HostileImage("png without its palette", of(png(40, 40, 3)))
    yield HostileImage(
        "png with half a color in its palette", of(png(40, 40, 3, before=chunk(b"PLTE", b"\0")))
    )
    for color, depth in ((0, 3), (2, 4), (3, 16), (4, 1), (6, 4), (0, 0), (2, 255)):
        yield HostileImage(
            f"png of color type {color} in {depth} bits",
            of(png(40, 40, color, depth, pixels=ones)),
        )
    filters = zlib.compress(bytes((9,)) + bytes(120))
    yield HostileImage("png with an unknown filter", of(png(40, 1, pixels=filters)))
    yield HostileImage("png with an unknown interlacing", of(png(40, 40, interlaced=9)))
    yield HostileImage("png whose pixels are not deflated", of(png(40, 40, pixels=bytes(4000))))
    jpeg = ordinary("JPEG")
    for name, offset, value in (
        ("12 bits", 4, 12),
        ("no bits", 4, 0),
        ("2 components", 9, 2),
        ("5 components", 9, 5),
        ("no components", 9, 0),
        ("255 components", 9, 255),
        ("wrong sampling", 11, 0xFF),
        ("no sampling", 11, 0),
        ("a missing table", 12, 3),
        ("a frame of arithmetic codes", 1, 0xC9),
        ("a lossless frame", 1, 0xC3),
        ("a hierarchical frame", 1, 0xC5),
    ):
        yield HostileImage(f"jpeg of {name}", of(formats.with_frame_field(jpeg, offset, value)))
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07")
    yield HostileImage("jpeg of an unknown transform", of(formats.with_segments(jpeg, adobe)))
    tables = jpeg.replace(b"\xff\xc4", b"\xff\xe4")
    yield HostileImage("jpeg without its codes", of(tables))
    for bits in (0, 1, 2, 4, 8, 16, 32, 64):
        palette = bytes(4 << bits) if bits in (1, 4, 8) else b""
        yield HostileImage(
            f"bmp of {bits} bits", of(bmp(40, 40, bits=bits, palette=palette, pixels=bytes(9000)))
        )
    for compression in (1, 2, 3, 4, 5, 6, 255):
        yield HostileImage(
            f"bmp of compression {compression}",
            of(
                bmp(
                    40,
                    40,
                    bits=8,
                    compression=compression,
                    palette=bytes(1024),
                    pixels=b"\x28\x01\0\0" * 40,
                )
            ),
        )
    yield HostileImage("bmp of 2^31 colors", of(bmp(40, 40, bits=8, colors=2**31, pixels=bytes(9))))
    yield HostileImage("bmp whose header is 2^31 long", of(bmp(40, 40, header_size=2**31)))
    yield HostileImage("bmp with an empty header", of(bmp(40, 40, header_size=0)))


def _sides() -> Iterator[HostileImage]:
    """Sides of 0 to 65,535 pixels, with the pixels they claim where that is possible."""
    sides = (0, 1, 255, _LARGEST)
    for width in sides:
        for height in sides:
            if width * height > 10**8:
                continue
            whole = partial(png, width, height, formats.GRAY)
            yield HostileImage(f"png of {width} x {height}", whole)
            yield HostileImage(f"gif of {width} x {height}", of(gif(width, height)))
            rows = bytes((width // 8 + 4) // 4 * 4 * height)
            whole = partial(bmp, width, height, bits=1, palette=bytes(8), pixels=rows)
            yield HostileImage(f"bmp of {width} x {height}", whole)
            if min(width, height) > 0:
                whole = partial(ordinary, "JPEG", "L", (min(width, 65_500), min(height, 65_500)))
                yield HostileImage(f"jpeg of {width} x {height}", whole)
    small = ordinary("JPEG")
    for width, height in ((0, 0), (0, 48), (64, 0), (_LARGEST, 1), (1, _LARGEST)):
        claimed = formats.resized_jpeg(small, width, height)
        yield HostileImage(f"jpeg that claims {width} x {height}", of(claimed))
    for width in (-1, -(2**31), 2**31 - 1):
        yield HostileImage(f"bmp {width} wide", of(bmp(width, 4)))
    for width, height in ((1, 16_383), (16_383, 1), (2, 2)):
        yield HostileImage(
            f"webp of {width} x {height}", partial(ordinary, "WEBP", "RGB", (width, height))
        )
    yield HostileImage("png of 2^31 x 2^31", of(png(2**31, 2**31, pixels=b"")))
    yield HostileImage("png of 2^32-1 x 1", of(png(2**32 - 1, 1, pixels=b"")))


# --- broken --------------------------------------------------------------------------------------


def _truncated() -> Iterator[HostileImage]:
    """Cut at many places, the early ones closer together: headers break in more ways."""
    for kind in formats.KINDS:
        whole = ordinary(kind)
        early = (2, 8, 14, 22, 31, 42)
        late = [len(whole) * part // 8 for part in range(1, 8)] + [len(whole) - 1]
        for cut in sorted({*early, *late}):
            yield HostileImage(f"{kind.lower()} cut after {cut} bytes", of(whole[:cut]))


def _flipped(number: int) -> Iterator[HostileImage]:
    """Some bits of ordinary files turned, most of them in their first 200 bytes."""
    for index in range(number):
        kind = formats.KINDS[index % len(formats.KINDS)]
        draw = Random(f"flip {index}")
        flipped = bytearray(ordinary(kind, "RGB", (48, 48)))
        for _ in range(draw.choice((1, 2, 8, 40))):
            within = min(200, len(flipped)) if draw.random() < 0.7 else len(flipped)
            flipped[draw.randrange(within)] ^= 1 << draw.randrange(8)
        yield HostileImage(f"{kind.lower()} with bits turned, {index}", of(bytes(flipped)))
