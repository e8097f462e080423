"""The GPU guide is followed, with a tiny checkpoint in the place of the downloaded one.

The commands are those of docs/gpu.md. Left out are the installation and the download. Changed are
the checkpoint's folder, ports, and in the copied configuration what a CPU cannot do.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import yaml

from benchmarks.families.checkpoints import write_checkpoint
from benchmarks.faults.supervised_process import free_port
from benchmarks.support.synthetic_catalogue import draw_items, write_plain_catalogue
from services.core.records import UserId
from services.process.announce import wait_until_listening
from tests.docs.documents import ROOT, Block, read_blocks

GUIDE = ROOT / "docs" / "gpu.md"
INSTALLS = ("pip install", "hf download")
NUM_USERS, NUM_ITEMS = 20, 40
# A CPU has neither bfloat16 nor hours.
SMALL = {
    **{"precision": "float32", "batch_size": 2, "gradient_accumulation": 1, "max_steps": 2},
    **{"num_workers": 0, "evaluate_steps": 0, "patience": 0, "max_validation_users": 4},
}
_ENVIRONMENT = "environment.sh"
_SERVER = re.compile(r"^msr (serve-model|serve) ")


def followed_blocks() -> list[Block]:
    """All commands of the guide but those that download; `accelerate` is for several cards."""
    return [
        block
        for block in read_blocks(GUIDE)
        if block.language == "sh" and not block.text.startswith((*INSTALLS, "accelerate"))
    ]


class Reader:
    """Types the blocks, in one environment and folder; servers run beside the rest."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder = folder
        self.answers: list[str] = []
        self._checkpoint = checkpoint
        self._ports = {port: str(free_port()) for port in ("8000", "8001", "8200")}
        self._servers: dict[str, subprocess.Popen[str]] = {}
        (folder / "model_training").symlink_to(ROOT / "model_training")
        (folder / _ENVIRONMENT).write_text("")

    def type(self, block: Block) -> None:
        """Run a block to its end, or until its server listens."""
        text = re.sub(r"\b(8000|8001|8200)\b", lambda found: self._ports[found[0]], block.text)
        text = text.replace("BASE=models/llava", f"BASE={self._checkpoint}")
        if _SERVER.match(text):
            self._start(block, text)
            return
        if "msr train" in text:  # as the guide says
            self._stop(self._ports["8001"])
        script = f". ./{_ENVIRONMENT}\n{text}\nexport -p > {_ENVIRONMENT}\n"
        finished = self._run(script, subprocess.STDOUT)
        said, _ = finished.communicate()
        assert finished.returncode == 0, f"{block}:\n{text}\n\n{said[-6000:]}"
        self.answers.append(said)
        if text.startswith("cp "):
            file = self.folder / text.split()[-1]
            file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | SMALL))

    def stop_all(self) -> None:
        """End the servers that run."""
        for port in list(self._servers):
            self._stop(port)

    def _start(self, block: Block, text: str) -> None:
        [port] = re.findall(r"--port (\d+)", text)
        self._stop(port)
        script = f". ./{_ENVIRONMENT}\nexec {text}"
        with (self.folder / f"server-{port}.log").open("w+") as log:
            server = self._run(script, log)
            self._servers[port] = server
            assert server.stdout is not None
            if wait_until_listening(server.stdout) is None:
                log.seek(0)
                pytest.fail(f"{block} did not come to listen:\n{text}\n\n{log.read()[-6000:]}")

    def _stop(self, port: str) -> None:
        if server := self._servers.pop(port, None):
            server.send_signal(signal.SIGINT)  # Ctrl-C
            server.communicate()

    def _run(self, script: str, errors: IO[str] | int) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**kept, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


@contextmanager
def reading(folder: Path, checkpoint: Path) -> Iterator[Reader]:
    reader = Reader(folder, checkpoint)
    try:
        yield reader
    finally:
        reader.stop_all()


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("mistral", marks=pytest.mark.vllm),
        pytest.param("qwen-3", marks=pytest.mark.families),  # as long again
    ],
)
def test_every_command_of_the_guide_runs_in_its_order(family: str, tmp_path: Path):
    checkpoint = write_checkpoint(family, tmp_path / "models" / family)
    users = [UserId(f"u{number}") for number in range(NUM_USERS)]
    write_plain_catalogue(tmp_path / "shop", draw_items("guide", NUM_ITEMS), users)

    with reading(tmp_path, checkpoint) as reader:
        for block in followed_blocks():
            reader.type(block)
            if block.text.startswith("curl"):
                assert '"degraded":false' in reader.answers[-1], reader.answers[-1]
                assert '"scored_by":"mllm' in reader.answers[-1], reader.answers[-1]

    assert (tmp_path / "D" / "reports" / "chrono-uniform" / "report.html").is_file()


@pytest.mark.vllm
def test_only_installation_download_and_several_cards_are_not_followed():
    followed = {block.text for block in followed_blocks()}

    left_out = [
        block.text.split()[:2]
        for block in read_blocks(GUIDE)
        if block.language == "sh" and block.text not in followed
    ]
    assert left_out == [["pip", "install"], ["hf", "download"], ["accelerate", "launch"]]
