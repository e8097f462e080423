"""Which build runs: its version and the commit of its source. For `GET /version`, metrics, traces,
and the tables that benchmarks keep.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "mllm-msr"
ROOT = Path(__file__).parents[2]
UNKNOWN = ""
# A measured table is not code: saving one must not make the next one look changed.
_CODE = (".", ":(exclude)benchmarks/results")


def code_commit(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> str:
    """MSR_COMMIT if it is set, as in an image; else git's short hash, with `+changes` if tracked
    files differ from it; else UNKNOWN.
    """
    if commit := environment.get("MSR_COMMIT"):
        return commit
    git = shutil.which("git")
    # Installed packages can be inside another project's repository: its commit is not this code's.
    if git is None or not (root / ".git").exists():
        return UNKNOWN

    def ask(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - git by its path, with our own arguments
            [git, "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changes = ask("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return ask("rev-parse", "--short", "HEAD") + ("+changes" if changes else "")
    except subprocess.CalledProcessError:  # no commit yet, or not our repository
        return UNKNOWN


@cache
def commit() -> str:
    """The commit of this process's code."""
    return code_commit()


def version() -> str:
    """The version in pyproject.toml, as installed."""
    return metadata.version(DISTRIBUTION)
