"""The documents are followed: their blocks are run in order, as a reader would type them.

Each document has an empty folder, in which the repository's own folders stand, since a reader works
in a clone. The package `msr_client` can be imported, as after `pip install ./clients/python`. Port
8000 is another, free one here.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.faults.supervised_process import free_port
from clients.python.packaging.build_backend import write_project
from services.process.announce import wait_until_listening
from tests.docs.documents import DOCUMENTS, ROOT, RUNNABLE, Block, read_blocks

_INSTALLED = "installed"
FOLLOWED = [
    document
    for document in DOCUMENTS
    if any(block.how != "not" and block.language in RUNNABLE for block in read_blocks(document))
]


@pytest.mark.docs
@pytest.mark.parametrize("document", FOLLOWED, ids=lambda path: path.name)
def test_a_document_can_be_followed_from_its_first_block_to_its_last(
    document: Path, tmp_path: Path
):
    for folder in ("model_training", "benchmarks", "docker"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    write_project(tmp_path / _INSTALLED)
    port = str(free_port())
    with ExitStack() as servers:
        for block in read_blocks(document):
            if block.language not in RUNNABLE or block.how == "not":
                continue
            text = block.text.replace("8000", port)
            if block.how == "beside":
                servers.enter_context(_serving(block, text, tmp_path))
            else:
                _run(block, text, tmp_path)


def _command(block: Block, text: str) -> list[str]:
    if block.language == "python":
        return [sys.executable, "-c", text]
    return ["bash", "-euo", "pipefail", "-c", text]


def _environment(folder: Path) -> dict[str, str]:
    """This environment's programs first; nothing of the settings of whoever runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return {**kept, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder / _INSTALLED}"}


def _run(block: Block, text: str, folder: Path) -> None:
    finished = subprocess.run(
        _command(block, text),
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{block}:\n{text}\n\n{finished.stdout[-6000:]}"


@contextmanager
def _serving(block: Block, text: str, folder: Path) -> Iterator[None]:
    with (
        open(folder / "server.log", "w+", encoding="utf-8") as log,
        subprocess.Popen(
            _command(block, f"exec {text}"),
            cwd=folder,
            env=_environment(folder),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            if wait_until_listening(server.stdout) is None:
                log.seek(0)
                pytest.fail(f"{block} did not come to listen:\n{log.read()[-6000:]}")
            yield
        finally:
            server.terminate()
