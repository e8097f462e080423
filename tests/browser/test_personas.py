"""Users who are worth a look are offered by name, where somebody has named any."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from services.core.data_folder.personas import FILE, Persona, write_personas
from services.state.user_store import Store
from tests.api.builders import an_app, put_catalogue, put_user
from tests.browser.chromium import PHONE, Watched, a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>"


async def two_users(store: Store) -> None:
    await put_catalogue(store)
    for user_id in ("ann", HOSTILE):
        await put_user(store, user_id, ["i1", "i2"], preference="Likes foxes.")


def test_the_demo_offers_some_that_lead_to_their_user(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator(".persona")).to_have_count(6)
    expect(page.locator(".persona img").first).to_have_js_property("complete", True)
    first = page.locator(".persona").first
    expect(first).to_contain_text("From")
    user_id = (first.get_attribute("href") or "").split("/")[-1]
    first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(user_id)
    expect(page.locator(".preference .text")).to_contain_text("Likes")


def test_they_give_way_to_what_is_searched(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator(".persona").first).to_be_visible()
    page.get_by_label("Find by the beginning").fill("user-0001")
    expect(page.locator(".persona")).to_have_count(0)
    page.get_by_label("Find by the beginning").fill("")
    expect(page.locator(".persona")).to_have_count(6)


def test_a_hostile_persona_is_shown_as_it_is_written(
    browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    text = f"{HOSTILE}</a><script>alert(1)</script>"
    write_personas(str(tmp_path), [Persona(user_id=HOSTILE, name=text, about=text)])
    world = a_world(redis_url, two_users, lambda store: an_app(store, data=str(tmp_path)))
    with world as url, a_page(browser, url, viewport=PHONE) as watched:
        page = watched.page
        page.goto("/")
        expect(page.locator(".persona .name")).to_have_text(text)
        expect(page.locator(".persona .about")).to_have_text(text)
        assert page.locator("main :is(script, img)").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.locator(".persona").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
        assert watched.all_faults() == []


def test_without_any_nothing_is_shown_of_them(browser: Browser, redis_url: str) -> None:
    with a_world(redis_url, two_users) as url, a_page(browser, url) as watched:
        watched.page.goto("/")
        expect(watched.page.locator(".person")).to_have_count(2)
        expect(watched.page.locator(".named")).to_be_empty()
        assert watched.all_faults() == []


def test_a_damaged_file_is_reported_beside_the_users(
    browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text("[")
    world = a_world(redis_url, two_users, lambda store: an_app(store, data=str(tmp_path)))
    with world as url, a_page(browser, url) as watched:
        watched.page.goto("/")
        expect(watched.page.locator(".named .banner")).to_contain_text("personas.json")
        expect(watched.page.locator(".person")).to_have_count(2)
        assert watched.all_faults() == []
