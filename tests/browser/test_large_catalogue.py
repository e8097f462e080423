import pytest
from playwright.sync_api import Browser, expect

from benchmarks.support.synthetic_catalogue import draw_summary, draw_title
from services.core.records import Item, ItemId
from services.state.records import ItemRecord
from services.state.user_store import Store
from tests.browser.chromium import a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser

NUM_ITEMS = 10_000


async def ten_thousand_items(store: Store) -> None:
    items = [Item(ItemId(f"drawn-{k:05d}"), draw_title(str(k))) for k in range(NUM_ITEMS)]
    for start in range(0, NUM_ITEMS, 1000):
        await store.items.put_items(
            [
                ItemRecord(item, item.version, draw_summary(item.item_id), "ready")
                for item in items[start : start + 1000]
            ]
        )


def test_ten_thousand_items_are_paged_and_searched(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url, ten_thousand_items) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/catalogue")
        expect(page.locator(".total")).to_have_text("10,000 items")
        expect(page.locator(".item .id").first).to_have_text("drawn-00000")
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".pager span")).to_have_text("49–96 of 10,000")  # noqa: RUF001
        page.get_by_label("Find by words").fill(" ".join(reversed(draw_title("9876").split()[:6])))
        expect(page.locator(".item .id")).to_have_text(["drawn-09876"])
        page.get_by_label("Find by words").fill("drawn-0999")
        expect(page.locator(".item")).to_have_count(10)
        assert watched.all_faults() == []
