from pathlib import Path

import pytest

from services.batch.readers.amazon import Amazon, find_cover_url
from services.core.errors import MalformedFile
from tests.batch.readers.builders import DAY_MS, a_product, a_review, an_amazon_folder


@pytest.mark.parametrize("zipped", [False, True])
def test_reviews_are_interactions_whatever_their_rating(tmp_path: Path, zipped: bool):
    reviews = [a_review("u", "a", 7, rating=1.0), a_review("v", "b", 8, rating=5.0)]
    source = Amazon(an_amazon_folder(tmp_path, reviews, [a_product()], zipped=zipped), "Toys")

    columns = source.interactions([])

    assert (columns.user_ids, columns.item_ids) == (["u", "v"], ["a", "b"])
    assert columns.timestamps_ms.tolist() == [7 * DAY_MS, 8 * DAY_MS]


def test_the_cover_is_the_main_image_in_its_large_size():
    images = [
        {"thumb": "t", "large": "other", "variant": "PT01", "hi_res": None},
        {"thumb": "t", "large": "main", "variant": "MAIN", "hi_res": "main_hi"},
    ]

    assert find_cover_url(images) == "main"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([], None),
        (None, None),
        ("text", None),
        ([None, 3], None),
        ([{"variant": "MAIN", "large": None, "hi_res": "hi"}], "hi"),
        ([{"variant": "MAIN"}, {"variant": "PT01", "large": "other"}], "other"),
    ],
)
def test_another_image_serves_when_the_main_one_is_absent(images: object, expected: str | None):
    assert find_cover_url(images) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"user_id": "u", "parent_as', "not a whole JSON object"),
        (b'{"user_id": "\xff\xfe"}', "not UTF-8"),
        (b"[" * 100_000, "not a whole JSON object"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"parent_asin": "a", "timestamp": 1}', "'user_id'"),
        (b'{"user_id": 5, "parent_asin": "a", "timestamp": 1}', "'user_id'"),
        (b'{"user_id": "u", "timestamp": 1}', "'parent_asin'"),
        (b'{"user_id": "u", "parent_asin": "a"}', "timestamp"),
        (b'{"user_id": "u", "parent_asin": "a", "timestamp": -5}', "outside 1970"),
        (b'{"user_id": "u", "parent_asin": "a", "timestamp": 1e300}', "outside 1970"),
        (b'{"user_id": "\\ud800", "parent_asin": "a", "timestamp": 1}', "not valid Unicode"),
    ],
)
def test_a_broken_line_costs_itself_alone_and_is_named(tmp_path: Path, line: bytes, reason: str):
    folder = an_amazon_folder(tmp_path, [a_review("u"), line, b"", a_review("v")], [a_product()])
    faults = []

    columns = Amazon(folder, "Toys").interactions(faults)

    assert columns.user_ids == ["u", "v"]
    assert [fault.row for fault in faults] == ["Toys.jsonl:2"]
    assert reason in faults[0].reason


def test_metadata_lines_are_read_alike(tmp_path: Path):
    products = [
        a_product("a", images=[{"large": "https://h/1.jpg"}]),
        b'{"cut',
        a_product("b", None),
    ]
    folder = an_amazon_folder(tmp_path, [a_review()], products)
    faults = []

    items = list(Amazon(folder, "Toys").items(faults))

    assert [(item.item_id, item.title) for item in items] == [("a", "Apple"), ("b", "")]
    assert [item.cover_url for item in items] == ["https://h/1.jpg", None]
    assert [fault.row for fault in faults] == ["meta_Toys.jsonl:2"]


def test_a_gzip_file_that_breaks_off_is_to_be_downloaded_again(tmp_path: Path):
    folder = an_amazon_folder(tmp_path, [a_review()] * 1000, [a_product()], zipped=True)
    path = folder / "Toys.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(MalformedFile, match="download it again"):
        Amazon(folder, "Toys").interactions([])


@pytest.mark.parametrize("category", ["Books", "../Toys", "", "*"])
def test_a_category_that_is_not_there_is_named(tmp_path: Path, category: str):
    folder = an_amazon_folder(tmp_path, [a_review()], [a_product()])

    with pytest.raises(MalformedFile, match=r"category|Books"):
        Amazon(folder, category)
