"""The TypeScript client: its types are current, it works on a running API, and it can be packed."""

import os
import subprocess
import tarfile
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


def test_the_packed_package_can_be_imported_and_required(tmp_path: Path):
    npm("pack", "--pack-destination", str(tmp_path))
    [tarball] = tmp_path.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
    assert {"package/README.md", "package/LICENSE", "package/dist/esm/index.js"} <= names
    assert not [name for name in names if "test" in name or "node_modules" in name]

    (tmp_path / "package.json").write_text('{"name": "user", "private": true}')
    npm("install", "--no-audit", "--no-fund", str(tarball), folder=tmp_path)
    use = 'if (createMsrClient("http://127.0.0.1:1").version === undefined) process.exit(1);\n'
    (tmp_path / "esm.mjs").write_text(f'import {{ createMsrClient }} from "msr-client";\n{use}')
    (tmp_path / "cjs.cjs").write_text(
        f'const {{ createMsrClient }} = require("msr-client");\n{use}'
    )
    for program in ("esm.mjs", "cjs.cjs"):
        subprocess.run(["node", program], cwd=tmp_path, check=True)

    # A user's compiler finds the types from both kinds of module.
    typed = (
        'import { createMsrClient } from "msr-client";\nconst n: number = createMsrClient("");\n'
    )
    for name in ("typed.mts", "typed.cts"):
        (tmp_path / name).write_text(typed)
        done = subprocess.run(
            ["node", str(PACKAGE / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict",
             "--skipLibCheck", "--module", "nodenext", "--target", "es2022", name],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "not assignable to type 'number'" in done.stdout
        assert "error TS7016" not in done.stdout


def test_the_lock_file_names_no_registry():
    assert "resolved" not in (PACKAGE / "package-lock.json").read_text()
