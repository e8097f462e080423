"""Hostile images sent through everything that takes images, and what became of each.

An image is either prepared (a JPEG of the catalogue's size) or refused with a reason: by
`PUT /items` of a real API process, and as covers of a catalogue by `msr prepare-catalogue`. Both
must decide alike. Whatever else happens to one is a fault.
"""

import asyncio
import base64
import contextlib
import csv
import io
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image

from benchmarks.attacks.hostile_image import HostileImage
from benchmarks.faults.supervised_process import api, ended_after, free_port, redis_server
from benchmarks.faults.world import prepare
from benchmarks.support.msr_process import MSR
from services.batch.covers import COVER_ROW
from services.core.artifacts import Artifact
from services.core.images import DEFAULT_IMAGE_SIZE
from services.core.records import ItemId
from services.state.user_store import Store

# Far more than any takes on a busy machine; a file that keeps the API busy forever takes longer.
HANGS_AFTER_SECONDS = 120.0
_IN_FLIGHT = 2
_REFUSALS = ("/problems/image-refused", "/problems/invalid-request", "/problems/body-too-large")


@dataclass(slots=True)
class AttackOutcomes:
    """What became of images in one place. `faults` says of each, by name, what went wrong."""

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    grown_bytes: int = 0
    slowest_seconds: float = 0.0


async def put_all(images: Sequence[HostileImage], folder: Path) -> AttackOutcomes:
    """Through `PUT /items` of an API process on a Redis of its own."""
    data, port = await prepare(folder), free_port()
    redis = redis_server(folder, port)
    redis_url = f"redis://127.0.0.1:{port}/0"
    server = api(data, redis_url, folder)
    outcomes = AttackOutcomes()
    with ended_after([redis, server]):
        await redis.start()
        await server.start()
        store = await Store.open(redis_url)
        async with httpx.AsyncClient(base_url=server.said, timeout=HANGS_AFTER_SECONDS) as http:
            await _put(http, store, HostileImage("ordinary", _ordinary), outcomes)  # all is loaded
            before = _resident_bytes(server.pid)
            turns = asyncio.Semaphore(_IN_FLIGHT)

            async def put_in_turn(image: HostileImage) -> None:
                async with turns:
                    await _put(http, store, image, outcomes)

            await asyncio.gather(*(put_in_turn(image) for image in images))
            if (await http.get("/health/live")).status_code != 200:
                outcomes.faults["the API"] = "is not alive at the end"
        outcomes.grown_bytes = _peak_resident_bytes(server.pid) - before
        await store.close()
        await server.stop()
    outcomes.accepted.discard("ordinary")
    return outcomes


async def _put(
    http: httpx.AsyncClient, store: Store, image: HostileImage, outcomes: AttackOutcomes
) -> None:
    encoded = base64.b64encode(await asyncio.to_thread(image.build)).decode()
    body = {"item_id": image.name, "title": "A hostile picture", "image": encoded}
    try:
        response = await http.put("/items", json=body)
    except httpx.HTTPError as error:
        outcomes.faults[image.name] = f"no answer ({type(error).__name__})"
        return
    outcomes.slowest_seconds = max(outcomes.slowest_seconds, response.elapsed.total_seconds())
    answer = response.json()
    if response.status_code in (200, 202):
        item_id = ItemId(image.name)
        stored = (await store.items.load_items([item_id]))[item_id].item
        _accept(image.name, stored.image, outcomes)
    elif answer.get("type") in _REFUSALS and answer.get("detail"):
        outcomes.refused[image.name] = answer["detail"]
    else:
        outcomes.faults[image.name] = f"HTTP {response.status_code}: {response.text[:200]}"


def prepare_all(images: Sequence[HostileImage], folder: Path) -> AttackOutcomes:
    """As the covers of a catalogue, through `msr prepare-catalogue`."""
    catalogue, data, name_of = folder / "hostile", folder / "prepared", dict[str, str]()
    (catalogue / "covers").mkdir(parents=True)
    with (catalogue / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("item_id", "title", "image"))
        for number, image in enumerate((HostileImage("ordinary", _ordinary), *images)):
            item_id, cover = f"item-{number:03d}", f"covers/{number:03d}"
            name_of[item_id] = image.name
            (catalogue / cover).write_bytes(image.build())
            rows.writerow((item_id, f"Hostile picture {number}", cover))
    (catalogue / "interactions.csv").write_text(
        "user_id,item_id,timestamp_ms\nu1,item-000,1\nu1,item-001,2\n"
    )
    outcomes = AttackOutcomes(grown_bytes=_run_watched(catalogue, data))
    items = Artifact(str(data), "items")
    for quarantined in items.manifest().quarantined:
        name = name_of[quarantined["row"].removeprefix(COVER_ROW)]
        outcomes.refused[name] = quarantined["reason"]
    for row in items.read().to_pylist():
        name = name_of[row["item_id"]]
        if name not in outcomes.refused:
            _accept(name, row["image"], outcomes)
    if "ordinary" not in outcomes.accepted:
        outcomes.faults["ordinary"] = "was not prepared"
    outcomes.accepted.discard("ordinary")
    return outcomes


def _run_watched(catalogue: Path, data: Path) -> int:
    """Run `msr prepare-catalogue`; by how much its memory grew while it went through the covers."""
    command = ("prepare-catalogue", "--catalogue", str(catalogue), "--data", str(data))
    least, peak = 0, 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([*MSR, *command], stdout=said, stderr=said)
        # What the kernel says of an ended child begins with the size of its parent at the fork.
        while process.poll() is None:
            with contextlib.suppress(OSError, StopIteration):  # it ended meanwhile
                peak = max(peak, _peak_resident_bytes(process.pid))
                if not least and (data / "items").exists():  # all is loaded
                    least = _resident_bytes(process.pid)
            time.sleep(0.01)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"msr {' '.join(command)} failed:\n{said.read()[-4000:]}")
    return peak - least


def disagreements(online: AttackOutcomes, offline: AttackOutcomes) -> set[str]:
    """Images that one of them accepted and the other did not."""
    return online.accepted ^ offline.accepted


def _accept(name: str, prepared: bytes | None, outcomes: AttackOutcomes) -> None:
    """Count as accepted what is a JPEG of the right size; else it is a fault."""
    if prepared is None:
        outcomes.faults[name] = "accepted without an image"
        return
    with Image.open(io.BytesIO(prepared)) as image:
        image.load()
        if (image.format, image.mode, *image.size) != (
            "JPEG",
            "RGB",
            DEFAULT_IMAGE_SIZE,
            DEFAULT_IMAGE_SIZE,
        ):
            outcomes.faults[name] = f"prepared to {image.format} {image.mode} {image.size}"
            return
    outcomes.accepted.add(name)


def _ordinary() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (2000, 1500), "teal").save(encoded, "PNG")
    return encoded.getvalue()


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _peak_resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
