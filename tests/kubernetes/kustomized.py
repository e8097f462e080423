"""What `kubectl kustomize` makes of an overlay, as far as ours use it: resources, patches that are
merged, a namespace. A test compares the two where kubectl is installed.
"""

from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).parents[2] / "docker" / "kubernetes"
OVERLAYS = ("cpu-demo", "gpu")
_UNDERSTOOD = {"apiVersion", "kind", "namespace", "resources", "patches"}

Object = dict[str, Any]


def overlay(name: str) -> list[Object]:
    """Every object of an overlay; KeyError for a patch of what is not there."""
    return _build(MANIFESTS / "overlays" / name)


def kustomizations() -> list[Path]:
    return sorted(MANIFESTS.rglob("kustomization.yaml"))


def named_files(kustomization: Path) -> list[str]:
    """The files, and folders of other kustomizations, that it names."""
    told = yaml.safe_load(kustomization.read_text())
    assert told.keys() <= _UNDERSTOOD, "teach kustomized.py what else stands there"
    return [*told["resources"], *(patch["path"] for patch in told.get("patches", ()))]


def documents(file: Path) -> list[Object]:
    return list(yaml.safe_load_all(file.read_text()))


def identity(thing: Object) -> tuple[str, str]:
    return thing["kind"], thing["metadata"]["name"]


def _build(folder: Path) -> list[Object]:
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: dict[tuple[str, str], Object] = {}
    for each in told["resources"]:
        path = folder / each
        for thing in _build(path) if path.is_dir() else documents(path):
            assert identity(thing) not in found, f"{identity(thing)} is there twice"
            found[identity(thing)] = thing
    for patch in told.get("patches", ()):
        for change in documents(folder / patch["path"]):
            _merge(found[identity(change)], change)
    if namespace := told.get("namespace"):
        for thing in found.values():
            if thing["kind"] != "Namespace":
                thing["metadata"]["namespace"] = namespace
    return list(found.values())


def _merge(thing: Object, change: Object) -> None:
    """Lists are replaced: those of named things, which kustomize merges, no patch of ours has."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(thing.get(key), dict):
            _merge(thing[key], value)
        else:
            assert not _of_named(value), "teach kustomized.py to merge lists by name"
            thing[key] = value


def _of_named(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)
