"""Which build runs: its version and the commit of its source."""

import os
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "mllm-msr"
_ROOT = Path(__file__).parents[2]


def version() -> str:
    """The version in pyproject.toml, as installed."""
    return metadata.version(DISTRIBUTION)


@cache
def commit() -> str:
    """MSR_COMMIT, which an image sets; else the commit of the checkout; "" if neither is known."""
    git = shutil.which("git")
    # Installed elsewhere, a folder above may be the repository of another project.
    if "MSR_COMMIT" in os.environ or git is None or not (_ROOT / ".git").exists():
        return os.environ.get("MSR_COMMIT", "")
    command = [git, "-C", str(_ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
