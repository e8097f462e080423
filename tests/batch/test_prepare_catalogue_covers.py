from contextlib import aclosing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from services.batch import covers
from services.batch.prepare_catalogue import run
from services.batch.readers.amazon import Amazon
from services.batch.readers.plain import Plain
from services.batch.readers.source import SourceItem
from services.core.artifacts import Artifact
from services.core.images import MAX_IMAGE_BYTES, ImageForm, prepare_cover, prepare_image
from services.core.records import item_version
from services.fetch.rules import FetchRules
from tests.batch.readers.builders import (
    a_plain_catalogue,
    a_product,
    a_review,
    an_amazon_folder,
)
from tests.fetch.image_server import Answer, ImageServer, an_image

IMAGE = an_image()


def images(data: Path) -> dict[str, bytes | None]:
    table = Artifact(str(data), "items").read(["item_id", "image"])
    return {row["item_id"]: row["image"] for row in table.to_pylist()}


def reasons(data: Path) -> dict[str, str]:
    listed = Artifact(str(data), "items").manifest().quarantined
    return {fault["row"]: fault["reason"] for fault in listed}


def prepare(folder: Path, data: Path, **options: object) -> dict[str, int]:
    return run(Plain(folder), data=str(data), image_size=28, **options)  # type: ignore[arg-type]


def from_server(server: ImageServer, folder: Path, data: Path, **options: object) -> dict[str, int]:
    hosts = {"allowed_hosts": (server.host,), "allow_private": True}
    return prepare(folder, data, **(hosts | options))


def a_shop_on(server: ImageServer, folder: Path) -> Path:
    items = [(name, name.title(), server.url(f"/{name}.png")) for name in ("apple", "bear", "car")]
    return a_plain_catalogue(folder, items, [("u", "apple", 1), ("u", "bear", 2)])


def test_a_cover_becomes_the_prepared_image_of_its_item(tmp_path: Path):
    folder = a_plain_catalogue(tmp_path / "shop", [("a", "Apple", "a.png"), ("b", "Bear", "")])
    (folder / "a.png").write_bytes(IMAGE)

    counts = prepare(folder, tmp_path / "data")

    assert images(tmp_path / "data") == {"a": prepare_image(IMAGE, 28), "b": None}
    assert counts["items_with_image"] == 1
    versions = Artifact(str(tmp_path / "data"), "items").read(["version"])["version"].to_pylist()
    assert versions[0] == item_version("Apple", prepare_image(IMAGE, 28))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no file a.png"),
        (b"", "empty file"),
        (b"no image at all", "not an image"),
        (IMAGE[:60], "cannot be decoded|not an image"),
        (b"\x89PNG" + bytes(MAX_IMAGE_BYTES), "shrink it"),
    ],
)
def test_an_item_with_a_bad_cover_stays_and_its_cover_is_quarantined(
    tmp_path: Path, content: bytes | None, reason: str
):
    folder = a_plain_catalogue(tmp_path / "shop", [("a", "Apple", "a.png"), ("b", "Bear", "")])
    if content is not None:
        (folder / "a.png").write_bytes(content)

    counts = prepare(folder, tmp_path / "data")

    assert images(tmp_path / "data") == {"a": None, "b": None}
    assert (counts["interactions"], counts["quarantined_covers"]) == (2, 1)
    assert list(reasons(tmp_path / "data")) == ["cover of a"]
    assert any(part in reasons(tmp_path / "data")["cover of a"] for part in reason.split("|"))


def test_a_decompression_bomb_is_quarantined_unopened(tmp_path: Path):
    folder = a_plain_catalogue(tmp_path / "shop", [("a", "Apple", "a.png"), ("b", "Bear", "")])
    Image.new("1", (9_000, 9_000)).save(folder / "a.png")

    prepare(folder, tmp_path / "data")

    assert "9000 x 9000 pixels" in reasons(tmp_path / "data")["cover of a"]


def test_amazon_covers_are_fetched_and_faulty_rows_cost_themselves_alone(tmp_path: Path):
    with ImageServer({"/a.png": Answer(IMAGE), "/b.png": Answer(b"", 404)}) as server:
        cover = {name: [{"variant": "MAIN", "large": server.url(f"/{name}.png")}] for name in "ab"}
        products = [a_product("a", "Ä", cover["a"]), a_product("b", "B", cover["b"]), b'{"title":']
        reviews = [a_review("u", item, day) for day, item in enumerate("abab?", start=1)]
        folder = an_amazon_folder(tmp_path / "amazon", reviews, products, zipped=True)

        counts = run(
            Amazon(folder, "Toys"), data=str(tmp_path / "data"), image_size=28,
            min_user_interactions=1, min_item_interactions=1,
            allowed_hosts=(server.host,), allow_private=True,
        )  # fmt: skip

    assert images(tmp_path / "data") == {"a": prepare_image(IMAGE, 28), "b": None}
    assert (counts["interactions"], counts["repeats"], counts["quarantined"]) == (2, 2, 3)
    assert set(reasons(tmp_path / "data")) == {"meta_Toys.jsonl.gz:3", "cover of b"}


def test_addresses_outside_the_rules_are_never_asked(tmp_path: Path):
    with ImageServer({"/apple.png": Answer(IMAGE)}) as server:
        folder = a_shop_on(server, tmp_path / "shop")
        other_host = prepare(folder, tmp_path / "data1", allow_private=True)
        private = prepare(folder, tmp_path / "data2", allowed_hosts=(server.host,))

    assert not server.requests
    assert other_host["quarantined_covers"] == private["quarantined_covers"] == 3
    assert "not on an allowed host" in reasons(tmp_path / "data1")["cover of apple"]
    assert "not a public address" in reasons(tmp_path / "data2")["cover of apple"]


def test_a_download_is_kept_for_another_size(tmp_path: Path):
    answers = {f"/{name}.png": Answer(IMAGE) for name in ("apple", "bear", "car")}
    with ImageServer(answers) as server:
        folder = a_shop_on(server, tmp_path / "shop")
        from_server(server, folder, tmp_path / "data")
        run(
            Plain(folder), data=str(tmp_path / "data"), image_size=56,
            allowed_hosts=(server.host,), allow_private=True,
        )  # fmt: skip

    assert server.requests.total() == 3
    assert images(tmp_path / "data")["car"] == prepare_image(IMAGE, 56)


# --- trying again --------------------------------------------------------------------------------


def test_retrying_fetches_the_quarantined_covers_alone(tmp_path: Path):
    good, later = Answer(IMAGE), [Answer(status=404), Answer(IMAGE)]
    answers = {"/apple.png": good, "/bear.png": later, "/car.png": [Answer(status=404)]}
    with ImageServer(answers) as server:
        folder = a_shop_on(server, tmp_path / "shop")
        first = from_server(server, folder, tmp_path / "data")
        again = from_server(server, folder, tmp_path / "data", retry_quarantined=True)

    assert server.requests == {"/apple.png": 1, "/bear.png": 2, "/car.png": 2}
    assert (first["quarantined_covers"], again["quarantined_covers"]) == (2, 1)
    assert (first["items_with_image"], again["items_with_image"]) == (1, 2)
    assert images(tmp_path / "data")["bear"] == prepare_image(IMAGE, 28)
    assert list(reasons(tmp_path / "data")) == ["cover of car"]


def test_recovered_covers_change_the_fingerprint_and_stay_on_a_rerun(tmp_path: Path):
    answers = {f"/{name}.png": Answer(IMAGE) for name in ("apple", "car")}
    with ImageServer(answers | {"/bear.png": [Answer(status=404), Answer(IMAGE)]}) as server:
        folder, data = a_shop_on(server, tmp_path / "shop"), tmp_path / "data"
        from_server(server, folder, data)
        before = Artifact(str(data), "items").manifest().fingerprint
        from_server(server, folder, data, retry_quarantined=True)
        after = Artifact(str(data), "items").manifest().fingerprint
        rerun = from_server(server, folder, data)

    assert after != before
    assert Artifact(str(data), "items").manifest().fingerprint == after
    assert rerun["items_with_image"] == 3


def test_a_kept_download_that_is_no_image_is_fetched_anew_on_a_retry(tmp_path: Path):
    answers = {f"/{name}.png": Answer(IMAGE) for name in ("apple", "car")}
    with ImageServer(answers | {"/bear.png": [Answer(b"broken"), Answer(IMAGE)]}) as server:
        folder, data = a_shop_on(server, tmp_path / "shop"), tmp_path / "data"
        from_server(server, folder, data)
        counts = from_server(server, folder, data, retry_quarantined=True)

    assert counts["quarantined_covers"] == 0


def test_a_retry_that_recovers_nothing_changes_nothing(tmp_path: Path):
    with ImageServer({}) as server:
        folder, data = a_shop_on(server, tmp_path / "shop"), tmp_path / "data"
        from_server(server, folder, data)
        before = {path: path.read_bytes() for path in data.rglob("*.*") if path.is_file()}
        from_server(server, folder, data, retry_quarantined=True)

    assert {path: path.read_bytes() for path in data.rglob("*.*") if path.is_file()} == before


@pytest.mark.parametrize("recovers", [True, False])
def test_a_retry_of_items_without_covers_for_people_brings_those_that_it_recovers(
    tmp_path: Path, recovers: bool
):
    bear = [Answer(status=404), Answer(IMAGE) if recovers else Answer(status=404)]
    answers = {"/apple.png": Answer(IMAGE), "/bear.png": bear, "/car.png": Answer(status=404)}
    with ImageServer(answers) as server:
        folder, data = a_shop_on(server, tmp_path / "shop"), tmp_path / "data"
        from_server(server, folder, data)
        [part] = data.glob("items/*/part-*")  # as a version wrote it that kept no such covers
        pq.write_table(pq.read_table(part).drop_columns("cover"), part)
        counts = from_server(server, folder, data, retry_quarantined=True)

    items = Artifact(str(data), "items")
    assert (items.has_column("cover"), counts["quarantined_covers"]) == (recovers, 2 - recovers)
    assert images(data)["apple"] == prepare_image(IMAGE, 28)
    if recovers:
        shown = prepare_cover(IMAGE, ImageForm(28)).shown
        assert items.read(["cover"])["cover"].to_pylist() == [None, shown, None]


async def test_a_host_that_keeps_failing_is_given_up(tmp_path: Path):
    most = covers.UNREACHABLE_AFTER + covers.MAX_IN_FLIGHT
    paths = [f"/{k}.png" for k in range(2 * most)]
    with ImageServer({path: Answer(status=503) for path in paths}) as server:
        items = [SourceItem("row", path, "Title", cover_url=server.url(path)) for path in paths]
        rules = FetchRules((server.host,), allow_private=True, max_attempts=1, max_per_host=2)
        loader = covers.CoverLoader(data=str(tmp_path), form=ImageForm(28), rules=rules)
        async with aclosing(loader):
            loaded = await loader.load_all(items)

    assert covers.UNREACHABLE_AFTER <= server.requests.total() <= most
    assert "was given up" in loaded[-1].fault
    assert "--retry-quarantined" in loaded[-1].fault
