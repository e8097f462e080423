"""The distribution `msr-client`: what it contains, and that it works without the repository."""

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from clients.python.packaging.build_backend import PROJECT, write_project

MAX_WHEEL_BYTES = 250_000
LOWEST = ("pydantic==2.7.0", "httpx==0.27.0", "httpx-retries==0.6.0", "httpx-sse==0.4.3")

# In a program of its own: nothing of the repository, and no package but these, can be imported.
IMPORT_ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    ours = {"msr_client", "httpx", "httpx_retries", "httpx_sse", "pydantic", "pydantic_core"}
    # What those need themselves; what they would like to have, they can do without.
    theirs = {"httpcore", "h11", "anyio", "idna", "certifi", "annotated_types",
              "typing_extensions", "typing_inspection"}
    def find_spec(self, name, path, target=None):
        root = name.partition(".")[0]
        known = self.ours | self.theirs | sys.stdlib_module_names
        if root not in known and not root.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refuse())
import msr_client
"""

CALL_THE_API = """
import asyncio, json, sys
from contextlib import aclosing, closing
import httpx, pydantic
import msr_client
from msr_client.wire import InteractionIn

url, user_id = sys.argv[1:]
taken = InteractionIn(user_id=user_id, item_id="i1")

async def watch_and_forget():
    async with msr_client.AsyncMsrClient(url) as client:
        async with aclosing(client.watch_preference(user_id)) as updates:
            first = await anext(updates)
        await client.forget(user_id)
        return first.history_version

with msr_client.MsrClient(url) as client:
    found = {
        "file": msr_client.__file__,
        "versions": client.interact(taken, taken).versions,
        "items": [item.item_id for item in client.recommend("u1", candidates=["i2", "i3"]).items],
    }
    with closing(client.watch_preference(user_id)) as updates:
        found["watched"] = next(updates).history_version
    found["watched_async"] = asyncio.run(watch_and_forget())
    try:
        client.preference(user_id)
    except msr_client.UnknownUser:
        found["forgotten"] = True
print(json.dumps(found))
"""


def run(*command: str | Path, **options: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def a_venv(folder: Path) -> Path:
    """The Python of a new environment in this folder."""
    run(sys.executable, "-m", "venv", folder / "venv")
    return folder / "venv" / "bin" / "python"


def test_the_package_needs_pydantic_and_the_packages_of_httpx_alone(tmp_path: Path) -> None:
    write_project(tmp_path)
    run(sys.executable, "-c", IMPORT_ALONE, cwd=tmp_path)


def test_the_service_and_both_clients_have_one_version() -> None:
    service = tomllib.loads((PROJECT.parents[1] / "pyproject.toml").read_text())
    python = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    npm = json.loads((PROJECT.parent / "typescript" / "package.json").read_text())
    lock = json.loads((PROJECT.parent / "typescript" / "package-lock.json").read_text())
    version = service["project"]["version"]
    assert (python["project"]["version"], npm["version"], lock["version"]) == (version,) * 3


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and of the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    python = a_venv(tmp_path_factory.mktemp("tools"))
    run(python, "-m", "pip", "install", "build", cwd=folder)
    run(python, "-m", "build", "--outdir", folder, PROJECT)
    return folder


@pytest.mark.slow
def test_a_wheel_is_small_has_one_top_level_name_and_is_the_one_of_the_sdist(
    built: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, PROJECT)
    [wheel], [of_sdist] = tmp_path.glob("*.whl"), built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(of_sdist) as again:
        contents = {name: archive.read(name) for name in archive.namelist()}
        assert contents == {name: again.read(name) for name in again.namelist()}
    roots = {name.partition("/")[0] for name in contents}
    [info] = [root for root in roots if root.endswith(".dist-info")]
    assert roots == {"msr_client", info}
    assert {"msr_client/py.typed", f"{info}/licenses/LICENSE"} <= contents.keys()
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    assert not [
        name for name, data in contents.items() if b"services" in data and name[-3:] == ".py"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("pins", [LOWEST, ()], ids=["lowest", "newest"])
def test_the_installed_client_works_with_the_oldest_and_the_newest_libraries(
    built: Path, tmp_path: Path, base_url: str, pins: tuple[str, ...]
) -> None:
    python = a_venv(tmp_path)
    [wheel] = built.glob("*.whl")
    run(python, "-m", "pip", "install", wheel, *pins, cwd=tmp_path)
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    versions = {f"{each['name']}=={each['version']}" for each in listed}
    assert set(pins) <= versions

    user_id = f"installed-{len(pins)}"
    program = (python, "-I", "-W", "error", "-c", CALL_THE_API)
    found = json.loads(run(*program, base_url, user_id, cwd=tmp_path))

    assert found.pop("file").startswith(str(tmp_path))
    assert found == {
        "versions": {user_id: 2},
        "items": ["i2", "i3"],
        "watched": 2,
        "watched_async": 2,
        "forgotten": True,
    }
