"""Hostile images that are something else than they seem, or no image at all."""

import io
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from random import Random

from benchmarks.attacks import formats
from benchmarks.attacks.formats import ordinary, segment, tiff
from benchmarks.attacks.hostile_image import HostileImage, of


def polyglots() -> Iterator[HostileImage]:
    """Files that are an image and a program, a page or an archive too."""
    script, page = b"/*';alert(1)//*/=1;", b"<html><script>alert(1)</script></html>"
    shell, program = b"<?php system($_GET['c']); ?>", b"MZ\x90\0\x03\0\0\0"
    document = b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n%%EOF"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("../../evil.sh", "rm -rf /")
        packed.writestr("bomb", bytes(10_000_000))
    payloads = {
        "javascript": script,
        "html": page,
        "php": shell,
        "an executable": program,
        "pdf": document,
        "zip": archive.getvalue(),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(90),
    }
    for kind in formats.KINDS:
        whole = ordinary(kind)
        for name, payload in payloads.items():
            yield HostileImage(f"{kind.lower()} followed by {name}", of(whole + payload))
    for name in ("pdf", "zip", "html"):
        yield HostileImage(f"{name} followed by jpeg", of(payloads[name] + ordinary("JPEG")))
    as_comment = b"GIF89a/*" + ordinary("GIF")[8:] + b"*/=1;alert(1)"
    yield HostileImage("gif whose size opens a comment of javascript", of(as_comment))
    hidden = formats.with_segments(ordinary("JPEG"), segment(0xFE, shell) + segment(0xE1, page))
    yield HostileImage("jpeg with php and html in its segments", of(hidden))
    packed_jpeg = formats.with_segments(ordinary("JPEG"), segment(0xFE, archive.getvalue()))
    yield HostileImage("jpeg with a zip in a comment", of(packed_jpeg + archive.getvalue()))


def documents() -> Iterator[HostileImage]:
    """SVG and other text that a lenient reader would interpret, fetch or expand."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"{}>{}</svg>'
    laughs = "".join(
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' if n else '<!ENTITY l0 "lol">' for n in range(10)
    )
    external = '<!DOCTYPE svg [<!ENTITY x SYSTEM "{}">]>'
    texts = {
        "script": svg.format("", "<script>alert(1)</script>"),
        "event handler": svg.format(' onload="alert(1)"', ""),
        "foreign object": svg.format(
            "", "<foreignObject><iframe src='javascript:alert(1)'/></foreignObject>"
        ),
        "external entity of a file": external.format("file:///etc/passwd") + svg.format("", "&x;"),
        "external entity of an address": external.format("http://127.0.0.1/")
        + svg.format("", "&x;"),
        "billion laughs": f"<!DOCTYPE svg [{laughs}]>" + svg.format("", "&l9;"),
        "image of an address": svg.format("", '<image xlink:href="http://169.254.169.254/"/>'),
        "image of a file": svg.format("", '<image xlink:href="file:///dev/zero"/>'),
        "style from elsewhere": '<?xml-stylesheet href="http://127.0.0.1/"?>' + svg.format("", ""),
        "size of 10^9": svg.format(' width="1e9" height="1e9"', ""),
        "depth of 20,000": svg.format("", "<g>" * 20_000),
        "itself, used twice": svg.format("", '<g id="a"><use href="#a"/><use href="#a"/></g>'),
    }
    for name, text in texts.items():
        yield HostileImage(f"svg: {name}", of(f'<?xml version="1.0"?>{text}'.encode()))
    yield HostileImage("svg in utf-16", of(svg.format("", "").encode("utf-16")))
    yield HostileImage(
        "xbm", of(b"#define i_width 65535\n#define i_height 65535\nstatic char i_bits[] = {")
    )
    yield HostileImage("xpm", of(b'/* XPM */\nstatic char *x[] = {"65535 65535 1 1", "a c red"};'))
    yield HostileImage(
        "postscript", of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) (r) file\n")
    )
    yield HostileImage("mvg", of(b"push graphic-context\nfill 'url(https://127.0.0.1/|id)'\n"))


def lies() -> Iterator[HostileImage]:
    """One format's first bytes before another's, and bytes that are nothing at all."""
    whole = {kind: ordinary(kind) for kind in formats.KINDS}
    for seeming in formats.KINDS:
        for being in formats.KINDS:
            if seeming != being:
                lie = whole[seeming][:16] + whole[being]
                yield HostileImage(f"{being.lower()} that begins as {seeming.lower()}", of(lie))
    for kind in formats.KINDS:
        yield HostileImage(f"only the first bytes of {kind.lower()}", of(whole[kind][:12]))
        yield HostileImage(f"{kind.lower()} written backwards", of(whole[kind][::-1]))
        yield HostileImage(f"{kind.lower()} twice", of(whole[kind] * 2))
    for name, content in {
        "one byte": b"\0",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "spaces": b" " * 5000,
        "a path": b"/etc/passwd",
        "json": b'{"image": 1}',
        "an address": b"http://127.0.0.1/1.png",
        "a data url": b"data:image/png;base64,iVBORw0KGgo=",
        "noise": Random("noise").randbytes(9000),
        "pickled code": b"cos\nsystem\n(S'id'\ntR.",
        "a byte order mark": b"\xef\xbb\xbf",
    }.items():
        yield HostileImage(f"not an image: {name}", of(content))


def other_formats() -> Iterator[HostileImage]:
    """What Pillow could open, but we do not: every further reader is one more to be attacked."""
    for kind in (
        "TIFF",
        "ICO",
        "PCX",
        "TGA",
        "PPM",
        "SGI",
        "DDS",
        "JPEG2000",
        "MSP",
        "PDF",
        "EPS",
        "ICNS",
        "SPIDER",
        "AVIF",
        "QOI",
        "BLP",
    ):
        mode = {"MSP": "1", "SPIDER": "L", "BLP": "P"}.get(kind, "RGB")
        yield HostileImage(f"other format: {kind}", partial(ordinary, kind, mode, (64, 64)))
    for name, content in {
        "tiff whose directory is its next one": tiff((256, 4, 1, 9), next_directory=8),
        "tiff of 65,535 squared": tiff((256, 4, 1, 65_535), (257, 4, 1, 65_535), (262, 3, 1, 1)),
        "tiff of tags of 4 GB": tiff((256, 4, 2**32 - 1, 8), (273, 4, 2**31, 8)),
        "tiff of an unknown type": tiff((256, 99, 1, 9), (0, 0, 0, 0)),
        "bigtiff": b"II+\0\x08\0\0\0" + b"\xff" * 16,
        "psd of 30,000 squared": b"8BPS\0\x01"
        + bytes(6)
        + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3),
        "fits": b"SIMPLE  =                    T" + b" " * 50,
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(40),
        "icon of an image of 256": b"\0\0\x01\0\x01\0\0\0\0\0\x01\0\x20\0"
        + struct.pack("<II", 2**31, 22),
        "dib without a file header": struct.pack("<IiiHHIIiiII", 40, 9, 9, 1, 24, 0, 0, 0, 0, 0, 0),
    }.items():
        yield HostileImage(f"other format: {name}", of(content))
