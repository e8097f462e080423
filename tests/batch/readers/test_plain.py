from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.batch.readers.plain import Plain
from services.batch.readers.source import digest_source
from services.core.artifacts import QuarantinedRow
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


def ids_of(folder: Path, ids: pa.Array) -> tuple[list[str], list[str]]:
    """The item ids that a Parquet table with these is read as, and the faults of the others."""
    (folder / "items.csv").unlink()
    titles = [f"Item {k}" for k in range(len(ids))]
    pq.write_table(pa.table({"item_id": ids, "title": titles}), folder / "items.parquet")
    faults: list[QuarantinedRow] = []
    found = [item.item_id for item in Plain(folder).items(faults)]
    return found, [fault.reason for fault in faults]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([b"u0", "ü".encode()], pa.binary()), ["u0", "ü"]),
        (pa.array([b"u0"], pa.large_binary()), ["u0"]),
        (pa.array(["u0", "u1"]).dictionary_encode(), ["u0", "u1"]),
        (pa.array([900.0, None, 2.0**53 - 1]), ["900", "", "9007199254740991"]),
        (pa.array([7.0], pa.float32()), ["7"]),
        (pa.array([1.5, float("nan")]), ["1.5", ""]),
        (pa.array([Decimal("900.00"), Decimal("9007199254740993")]), ["900", "9007199254740993"]),
        (pa.array([2**63 + 1], pa.uint64()), ["9223372036854775809"]),
    ],
)
def test_ids_in_parquet_are_the_text_that_their_source_means(
    tmp_path: Path, ids: pa.Array, expected: list[str]
):
    assert ids_of(a_plain_catalogue(tmp_path), ids) == (expected, [])


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (pa.array([2.0**53]), "lost its last digits; write the column as integers"),
        (pa.array([2.0**24], pa.float32()), "lost its last digits"),
        (pa.array([float("inf")]), "lost its last digits"),
        (pa.array([b"\xff"], pa.binary()), "not UTF-8"),
    ],
)
def test_ids_that_cannot_be_told_are_refused_with_what_to_do(
    tmp_path: Path, ids: pa.Array, reason: str
):
    found, [fault] = ids_of(a_plain_catalogue(tmp_path), ids)

    assert found == []
    assert reason in fault


@pytest.mark.parametrize(
    "times",
    [
        pa.array([date(2020, 1, 1)], pa.date32()),
        pa.array([date(2020, 1, 1)], pa.date64()),
        pa.array([Decimal("1577836800000")]),
        pa.array([datetime(2020, 1, 1)], pa.timestamp("s")),
        pa.array([datetime(2020, 1, 1)], pa.timestamp("ns")),
    ],
)
def test_times_in_parquet_may_be_dates_and_decimals(tmp_path: Path, times: pa.Array):
    folder = a_plain_catalogue(tmp_path)
    (folder / "interactions.csv").unlink()
    table = pa.table({"timestamp_ms": times, "user_id": ["u"], "item_id": ["a"]})
    pq.write_table(table, folder / "interactions.parquet")

    assert Plain(folder).interactions([]).timestamps_ms.tolist() == [1_577_836_800_000]


@pytest.mark.parametrize("name", ["items", "interactions"])
def test_a_table_that_is_there_twice_is_never_guessed(tmp_path: Path, name: str):
    folder = a_plain_catalogue(tmp_path)
    (folder / f"{name}.parquet").touch()

    with pytest.raises(MalformedFile, match=rf"{name}\.csv, {name}\.parquet.*leave one"):
        Plain(folder)


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
