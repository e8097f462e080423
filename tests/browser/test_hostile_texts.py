"""Stored XSS: whatever strangers write into titles, ids and texts is shown as text, and runs
nothing. The server cleans titles when they come in; here they are put past it.
"""

from collections.abc import Sequence

import pytest
from playwright.sync_api import Browser, expect

from benchmarks.attacks.titles import ATTACKS, HELD_OUT
from services.core.records import Item, ItemId
from services.state.user_store import Store
from tests.api.builders import ITEM_IDS, put_user
from tests.browser.chromium import a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser

MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><iframe srcdoc="<script>parent.alert(1)</script>">',
    "<a href='javascript:alert(1)'>take me</a>",
    "'-alert(1)-'",
    "${alert(1)} {{constructor.constructor('alert(1)')()}}",
    "<style>*{display:none}</style><base href=//evil.test/>",
    "</title></textarea></noscript><body onload=alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
]
USER = "<img src=x onerror=alert(1)>/../?#%2F"


def hostile(titles: Sequence[str]):
    """A world in which every text is one of these."""

    async def populate(store: Store) -> None:
        for k, title in enumerate(titles):
            item_id = ItemId(ITEM_IDS[k]) if k < len(ITEM_IDS) else ItemId(f"{k} {title[:200]}")
            item = Item(item_id, title)
            await store.items.put_item(item, summary=None if k % 3 == 2 else title)
            if k % 3 == 2:
                await store.items.fail_item(item_id, item.version, title)
        await put_user(store, USER, ["i1", "i2", "i3", "i4"], preference=MARKUP[1])

    return populate


@pytest.mark.parametrize(
    "titles",
    [MARKUP, [attack("A red fox") for attack in (ATTACKS | HELD_OUT).values()]],
    ids=["markup", "orders to the model"],
)
def test_hostile_texts_are_shown_as_they_are(
    browser: Browser, redis_url: str, titles: Sequence[str]
) -> None:
    with a_world(redis_url, hostile(titles)) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/catalogue")
        expect(page.locator(".item")).to_have_count(min(len(titles), 48))
        shown = page.locator(".item h2").evaluate_all("all => all.map(each => each.textContent)")
        assert set(shown) <= set(titles)
        page.goto("/")
        expect(page.locator(".person .id")).to_have_text(USER)
        page.locator(".person").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(USER)
        expect(page.locator(".preference .text")).to_have_text(MARKUP[1])
        expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(2)
        page.locator(".take").first.click()
        expect(page.locator(".toast")).to_contain_text("Took")
        expect(page.locator(".strip figure")).to_have_count(5)
        made = "document.querySelectorAll('main :is(script, iframe, style, svg, base, a[href^=j])')"
        assert page.evaluate(f"{made}.length") == 0
        assert page.evaluate("document.scripts.length") == 2
        assert watched.all_faults() == []


def test_markup_could_not_run_even_if_it_became_markup(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/")
        refused = page.evaluate(
            """() => {
              try {
                document.body.innerHTML = "<img src=x onerror=alert(1)>";
                return "made";
              } catch (error) {
                return error.name;
              }
            }"""
        )
        assert refused == "TypeError"
        page.evaluate("document.body.append(Object.assign(document.createElement('p'), {id: 'p'}))")
        page.evaluate("document.getElementById('p').setAttribute('style', 'color: red')")
        faults = " ".join(watched.all_faults())
        assert "require-trusted-types-for" in faults
        assert "style-src-attr" in faults
        assert "dialog" not in faults
