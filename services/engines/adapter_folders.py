"""The adapters that can be served: folders with PEFT's files and the manifest of their training.

    data/adapters/
      spring/, summer/, ...    each like data/adapter (`adapter_manifest.py`)

Every scan reads the folder again, so a new adapter is found without a restart. Put it there whole
(copy it beside the folder, then rename it). Never write other weights into an adapter that is in
use: its name means the weights that it had when it was chosen.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import ArtifactMismatch, ModelUnusable
from services.core.ids import NAME_PATTERN
from services.engines.adapter_manifest import (
    MANIFEST,
    AdapterManifest,
    read_adapter_manifest,
    require_servable,
)
from services.engines.checkpoints import read_adapter

MAX_KNOWN = 1024
_FileState = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter folder; `problem` says why it cannot be served on this base ("" if it can).

    `manifest` is None if it cannot be read.
    """

    name: str
    folder: str
    manifest: AdapterManifest | None
    problem: str


class AdapterFolders:
    """The adapters in a folder, and adapters that are given by name."""

    def __init__(self, folder: str | Path, given: Mapping[str, str], *, model: str) -> None:
        """`given`: name -> folder; they win over adapters of the same name in `folder`.

        `model` is the fingerprint of the base that would serve them.
        """
        self._folder = Path(folder)
        self._given = dict(given)
        self._model = model
        # Weights are hashed once, and again when a file is touched.
        self._examine_once = functools.lru_cache(MAX_KNOWN)(self._examine)

    def scan(self) -> dict[str, FoundAdapter]:
        """All adapters by name, sorted. Hashes weights only if their files changed."""
        folders = {path.name: str(path) for path in self._folder.glob("*/") if _is_adapter(path)}
        return {
            name: self._examine_once(name, folder, _file_state(folder))
            for name, folder in sorted({**folders, **self._given}.items())
        }

    def _examine(self, name: str, folder: str, _: _FileState) -> FoundAdapter:
        manifest, problem = None, ""
        try:
            manifest = read_adapter_manifest(folder)
            require_servable(read_adapter(folder), model=self._model)
        except (ModelUnusable, ArtifactMismatch) as error:
            # API clients see this message: no server paths.
            problem = str(error).replace(f"{folder}/", "").replace(folder, repr(name))
        except OSError as error:
            problem = f"its files cannot be read ({error.strerror})"
        if not problem and not re.fullmatch(NAME_PATTERN, name):
            problem = "its name cannot be part of a URL; use letters, digits and . _ - only"
        return FoundAdapter(name, folder, manifest, problem)


def _is_adapter(path: Path) -> bool:
    return not path.name.startswith(".") and (
        (path / MANIFEST).is_file() or (path / "adapter_config.json").is_file()
    )


def _file_state(folder: str) -> _FileState:
    """Names, times and sizes of the folder's files: it changes when a file does."""
    try:
        files = [(path.name, path.stat()) for path in Path(folder).iterdir()]
    except OSError:  # the folder was removed meanwhile
        return ()
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in files))
