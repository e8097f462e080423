"""Install what this project needs at the versions and hashes of requirements.lock.

    python .ci/install.py EXTRA_OR_GROUP...

pip's own variables say into which environment (PIP_PYTHON) and where else to look (PIP_FIND_LINKS).
pip accepts hashes for all packages of an installation or for none, so torch is a second step: a
build for the CPU or for CUDA, whichever is offered, with the CUDA packages that it asks for.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What every installation gets: the project's own dependencies and what builds it.
ALWAYS = {"base", "build"}


def select(lock: str, names: set[str]) -> str:
    """The packages that one of the extras or groups needs."""
    blocks = re.findall(r"^# ([\w -]+)\n((?:[^#].*\n)+)", lock, re.MULTILINE)
    known = {name for needed_by, _ in blocks for name in needed_by.split()}
    if unknown := names - known:
        sys.exit(f"requirements.lock has no {', '.join(sorted(unknown))}; run `make lock`")
    return "".join(text for needed_by, text in blocks if names & set(needed_by.split()))


def requirement(name: str, *, extra: str) -> str:
    """What an extra in pyproject.toml asks of a package."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    asked: list[str] = declared["project"]["optional-dependencies"][extra]
    return next(each for each in asked if re.match(rf"{name}\W", each))


def pip(*arguments: str) -> None:
    """Install; ends the program with pip's own message if that fails."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, *arguments], check=False).returncode:
        sys.exit(f"pip could not install {' '.join(arguments)}")


def main() -> None:
    """Install the locked packages, then torch."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as chosen:
        lock = (ROOT / "requirements.lock").read_text("utf-8")
        chosen.write(select(lock, ALWAYS | set(sys.argv[1:])))
        chosen.flush()
        pip("--no-deps", "--require-hashes", "--requirement", chosen.name)
    pip(requirement("torch", extra="serve"))


if __name__ == "__main__":
    main()
