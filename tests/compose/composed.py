"""The compose files as values: variables filled in with their defaults, `!override` as it reads."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE, ON_CPU = ROOT / "docker-compose.yml", ROOT / "docker" / "compose.cpu.yml"
ENV_EXAMPLE = ROOT / "docker" / ".env.example"
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")


class _Loader(yaml.SafeLoader):
    """Takes compose's own tag for what replaces instead of being merged."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_mapping(node, deep=True))


def variables(*files: Path) -> dict[str, set[str]]:
    """Every variable that the files read, with the defaults that stand there."""
    found: dict[str, set[str]] = {}
    for file in files:
        for name, default in _VARIABLE.findall(_without_comments(file)):
            found.setdefault(name, set()).add(default)
    return found


def handed_on(*files: Path) -> set[str]:
    """Names that containers get from .env or the shell, if they stand there."""
    return {
        name
        for file in files
        for service in load(file)["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }


def load(file: Path) -> dict[str, Any]:
    """A compose file with its defaults; `$$` as the container's shell sees it."""
    text = _VARIABLE.sub(lambda found: found[2], file.read_text()).replace("$$", "$")
    document: dict[str, Any] = yaml.load(text, _Loader)
    return document


def _without_comments(file: Path) -> str:
    return re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE)
