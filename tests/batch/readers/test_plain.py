from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.batch.readers.plain import Plain
from services.batch.readers.source import digest_source
from services.core.errors import MalformedFile
from tests.batch.readers.builders import a_plain_catalogue, write_csv


def test_an_image_is_a_file_beside_the_table_or_an_address(tmp_path: Path):
    rows = [("a", "Apple", "covers/a.png"), ("b", "Bear", "https://h/b.png"), ("c", "Car", "")]

    items = list(Plain(a_plain_catalogue(tmp_path, rows)).items([]))

    assert [item.cover_file for item in items] == [tmp_path / "covers/a.png", None, None]
    assert [item.cover_url for item in items] == [None, "https://h/b.png", None]


def test_parquet_tables_with_numbers_and_times_read_like_csv(tmp_path: Path):
    a_plain_catalogue(tmp_path)
    times = pa.array([1_577_836_800_000_000], pa.timestamp("us", tz="Asia/Tokyo"))
    items = pa.table({"item_id": [7], "title": ["Apple"], "price": [1.5]})
    interactions = pa.table({"timestamp": times, "user_id": [12], "item_id": [7]})
    for name, table in (("items", items), ("interactions", interactions)):
        (tmp_path / f"{name}.csv").unlink()
        pq.write_table(table, tmp_path / f"{name}.parquet")

    source = Plain(tmp_path)

    columns = source.interactions([])
    assert (columns.user_ids, columns.item_ids) == (["12"], ["7"])
    assert columns.timestamps_ms.tolist() == [1_577_836_800_000]
    assert [item.item_id for item in source.items([])] == ["7"]


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "link/passwd"])
def test_an_image_path_that_leaves_the_folder_stops_the_step(tmp_path: Path, image: str):
    folder = a_plain_catalogue(tmp_path / "shop", [("a", "Apple", ""), ("b", "Bear", image)])
    (folder / "link").symlink_to("/etc")

    with pytest.raises(MalformedFile, match=r"items\.csv:3.*leads outside"):
        list(Plain(folder).items([]))


@pytest.mark.parametrize(
    ("table", "header", "missing"),
    [
        ("items", ("item_id", "name"), "'title'"),
        ("items", ("id", "title"), "'item_id'"),
        ("interactions", ("user_id", "item_id", "when"), "'timestamp_ms'"),
        ("interactions", ("item_id", "timestamp"), "'user_id'"),
        ("interactions", (), "'user_id', 'item_id', 'timestamp_ms'"),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, table: str, header: tuple, missing: str):
    folder = a_plain_catalogue(tmp_path)
    write_csv(folder / f"{table}.csv", header, [])

    with pytest.raises(MalformedFile, match=rf"{table}\.csv has no column {missing}"):
        Plain(folder)


def test_a_table_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(MalformedFile, match=r"no items table; expected items\.csv or items\.parq"):
        Plain(tmp_path)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path):
    folder = a_plain_catalogue(tmp_path)
    (folder / "items.csv").rename(folder / "items.parquet")

    with pytest.raises(MalformedFile, match=r"items\.parquet is not a readable Parquet file"):
        Plain(folder)


def test_broken_rows_cost_themselves_alone_and_are_named(tmp_path: Path):
    folder = a_plain_catalogue(tmp_path)
    (folder / "interactions.csv").write_bytes(
        b"\xef\xbb\xbfuser_id,item_id,timestamp_ms\r\n"
        b"u,a,1\r\nu,b\r\nu,\xff,3\r\n,c,4\r\nu,c,never\r\n\r\nu,d,99999999999999\r\nu,b,5\r\n"
    )
    faults = []

    columns = Plain(folder).interactions(faults)

    assert [columns.item_ids[k] for k in columns.items] == ["a", "b"]
    assert [fault.row.partition(":")[2] for fault in faults] == ["3", "4", "5", "6", "8"]


def test_a_quote_that_is_never_closed_is_reported_with_its_line(tmp_path: Path):
    folder = a_plain_catalogue(tmp_path)
    (folder / "items.csv").write_text('item_id,title\na,Apple\nb,"Bear\n' + "c,Car\n" * 3_000_000)

    with pytest.raises(MalformedFile, match="quote that is opened"):
        list(Plain(folder).items([]))


def test_the_digest_follows_tables_and_covers_and_not_where_they_lie(tmp_path: Path):
    for name in ("one", "two"):
        folder = a_plain_catalogue(tmp_path / name, [("a", "Apple", "a.png")])
        (folder / "a.png").write_bytes(b"image")
    before = digest_source(Plain(tmp_path / "one"))
    assert digest_source(Plain(tmp_path / "two")) == before

    (tmp_path / "one" / "a.png").write_bytes(b"another")

    assert digest_source(Plain(tmp_path / "one")) != before
