"""Builds the distribution `msr-client`, by `pip wheel` or `python -m build` on `clients/python`.

Its package `msr_client` is made of the modules of `clients/python` and of the wire models. The
models are defined once, in `services/core/wire`, because the server validates with them. A build
copies them and what they import, and writes `msr_client` where the repository says `clients.python`
or `services.core`. An sdist contains the finished package and builds without the repository.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
_REPOSITORY = PROJECT.parents[1]
_CORE = _REPOSITORY / "services" / "core"
_PACKAGE = "msr_client"
_CORE_IMPORT = re.compile(r"^from services\.core(?:\.(\w+)| import (\w+))", re.MULTILINE)
_OLD_NAME = re.compile(r"\b(?:clients\.python|services\.core)\b")
_COPIED = ("pyproject.toml", "README.md", "MANIFEST.in", "packaging/build_backend.py")


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: object = None
) -> str:
    """PEP 517: the name of the wheel written to this folder."""
    from setuptools import build_meta  # type: ignore[import-untyped]

    folder = Path(wheel_directory).resolve()
    with _project():
        name: str = build_meta.build_wheel(str(folder))
        return name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """PEP 517: the name of the source archive written to this folder."""
    from setuptools import build_meta

    folder = Path(sdist_directory).resolve()
    with _project():
        name: str = build_meta.build_sdist(str(folder))
        return name


@contextmanager
def _project() -> Iterator[None]:
    """Work in a folder with the finished package: an sdist's own, or a temporary one."""
    if (PROJECT / _PACKAGE).is_dir():
        with chdir(PROJECT):
            yield
        return
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder))
        with chdir(folder):
            yield


def write_project(folder: Path) -> None:
    """Write all files of the distribution to this folder, `msr_client` among them."""
    sources = {path: Path(path.name) for path in PROJECT.glob("*.py")}
    unread = list(sources)
    while unread:
        for names in _CORE_IMPORT.findall(unread.pop().read_text(encoding="utf-8")):
            for path in _core_files("".join(names)):
                if path not in sources:
                    sources[path] = path.relative_to(_CORE)
                    unread.append(path)
    for path, place in sources.items():
        text = _OLD_NAME.sub(_PACKAGE, path.read_text(encoding="utf-8"))
        _write(folder / _PACKAGE / place, text)
    _write(folder / _PACKAGE / "py.typed", "")
    for name in _COPIED:
        _write(folder / name, (PROJECT / name).read_text(encoding="utf-8"))
    shutil.copy(_REPOSITORY / "LICENSE", folder)


def _core_files(name: str) -> list[Path]:
    """The files of a module or a package of the core."""
    folder = _CORE / name
    return sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
