"""Writes a file so that readers see the earlier content or the new one, never a part.

The file is written beside its place, under a name that no other process has, and then renamed. A
process that is killed leaves a file that ends in `.unfinished` and that no program reads.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

UNFINISHED_SUFFIX = ".unfinished"


def atomic_write(
    path: str | Path, data: bytes, filesystem: AbstractFileSystem | None = None
) -> None:
    """Write or replace a file, on the local disk unless another file system is given."""
    filesystem = filesystem or LocalFileSystem()
    with unfinished_file(path, filesystem) as unfinished:
        filesystem.pipe_file(unfinished, data)


@contextmanager
def unfinished_file(
    path: str | Path, filesystem: AbstractFileSystem | None = None
) -> Iterator[str]:
    """Yield the name to write to; the file becomes `path` when the block ends without an error."""
    filesystem = filesystem or LocalFileSystem()
    unfinished = unfinished_name(path)
    try:
        yield unfinished
        filesystem.mv(unfinished, str(path))
    except BaseException:
        with suppress(OSError):
            filesystem.rm_file(unfinished)
        raise


def unfinished_name(path: str | Path) -> str:
    """A name beside `path` that no other process has."""
    return f"{path}.{uuid.uuid4().hex}{UNFINISHED_SUFFIX}"
