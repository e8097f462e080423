"""The console's files as they are served: read once, under addresses that name their version.

`console/index.html` loads the others from `/console/DIGEST/`, where DIGEST is a hash of all files;
modules import one another by relative paths. So a browser may keep every file forever, and still
gets a new version at once. There is no build step.
"""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "console"
PAGE = "index.html"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_PLACE = "CONSOLE-DIGEST"

# Nothing from other hosts, nothing inline, and no text that becomes markup. `blob:` is for images
# that were fetched with an API key.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """One file, plain and compressed."""

    data: bytes
    zipped: bytes
    media_type: str
    tag: str


@dataclass(frozen=True, slots=True)
class ConsoleFiles:
    """The page, and the files that it loads, by name; `digest` identifies this version of all."""

    digest: str
    page: ConsoleFile
    assets: Mapping[str, ConsoleFile]


@cache
def read_console() -> ConsoleFiles:
    """Read every file of the console."""
    contents = {
        path.name: path.read_bytes()
        for path in sorted(FOLDER.iterdir())
        if path.suffix in MEDIA_TYPES
    }
    facts = hashlib.sha256()
    for name, data in contents.items():
        facts.update(f"{name} {len(data)}\n".encode() + data)
    digest = facts.hexdigest()[:16]
    page = contents.pop(PAGE).replace(_PLACE.encode(), digest.encode())
    return ConsoleFiles(
        digest=digest,
        page=_file(PAGE, page),
        assets={name: _file(name, data) for name, data in contents.items()},
    )


def _file(name: str, data: bytes) -> ConsoleFile:
    return ConsoleFile(
        data=data,
        zipped=gzip.compress(data, mtime=0),
        media_type=MEDIA_TYPES[Path(name).suffix],
        tag=f'"{hashlib.sha256(data).hexdigest()[:16]}"',
    )
