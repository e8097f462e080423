from typing import Any

import pytest
from playwright.sync_api import Browser

from services.api.browse.console_files import read_console
from tests.browser.chromium import a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser

TEXTS = [
    ("Likes red foxes in snow.", "Likes blue foxes in deep snow."),
    ("", "Likes foxes."),
    ("Likes foxes.", ""),
    ("a b c", "a b c"),
    ("a b c d", "d c b a"),
    ("one " * 700, "two " * 700),
]


@pytest.fixture(scope="module")
def difference(browser: Browser, redis_url: str) -> Any:
    script = "async ([path, a, b]) => (await import(path)).wordDiff(a, b)"
    path = f"/console/{read_console().digest}/diff.js"
    with a_world(redis_url) as url, a_page(browser, url) as watched:
        watched.page.goto("/")
        yield lambda before, after: watched.page.evaluate(script, [path, before, after])


def test_what_stays_what_goes_and_what_comes_is_reported_in_reading_order(difference: Any) -> None:
    assert difference(*TEXTS[0]) == [
        ["same", "Likes"], ["removed", "red"], ["added", "blue"], ["same", "foxes in"],
        ["added", "deep"], ["same", "snow."],
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), TEXTS)
def test_both_texts_can_be_read_from_it(difference: Any, before: str, after: str) -> None:
    runs = difference(before, after)
    words = {kind: [] for kind in ("added", "removed")}
    for kind, text in runs:
        for side in words:
            if kind in (side, "same"):
                words[side] += text.split()
    assert (words["removed"], words["added"]) == (before.split(), after.split())
