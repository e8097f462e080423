"""The TypeScript client: its types are those of today's document, and it works on a running API."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest

import clients
from benchmarks.support.msr_process import serving
from model_training.demo.world import write_files
from tests.processes import msr, msr_says

pytestmark = pytest.mark.node

PACKAGE = Path(clients.__file__).parent / "typescript"


def npm(*arguments: str, folder: Path = PACKAGE, **environment: str) -> None:
    subprocess.run(["npm", *arguments], cwd=folder, env=os.environ | environment, check=True)


@pytest.fixture(scope="module")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`msr serve` with the demo model over a small demo world."""
    folder = tmp_path_factory.mktemp("node")
    write_files(folder / "world", num_items=24, num_users=12)
    data = folder / "data"
    world = ("--catalogue", str(folder / "world"), "--image-size", "56")
    msr("prepare-catalogue", *world, "--data", str(data))
    msr("summarize-images", "--data", str(data))
    with serving(data) as url:
        yield url


def test_the_types_are_made_of_todays_document(tmp_path: Path):
    copy(PACKAGE / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(PACKAGE / "node_modules")
    (tmp_path / "openapi.json").write_text(msr_says("openapi"))

    npm("run", "generate", folder=tmp_path)

    today = (tmp_path / "src" / "schema.ts").read_text()
    assert (PACKAGE / "src" / "schema.ts").read_text() == today, "run `make typescript-client`"


def test_the_client_works_on_a_running_api(api_url: str):
    npm("test", MSR_URL=api_url)
