"""axe-core finds nothing serious in any view, by light and by dark."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import a_page, open_user, serious_violations
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser


def user(page: Page) -> None:
    open_user(page, "user-00003")
    page.locator(".place summary").first.click()


def users(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".persona").first).to_be_visible()
    expect(page.locator(".person").first).to_be_visible()


def catalogue(page: Page) -> None:
    page.goto("/#/catalogue")
    expect(page.locator(".item").first).to_be_visible()


def adapters(page: Page) -> None:
    page.goto("/#/adapters")
    expect(page.locator(".adapter").first).to_be_visible()


def work(page: Page) -> None:
    page.goto("/#/work")
    expect(page.locator(".step").first).to_be_visible()


def health(page: Page) -> None:
    page.goto("/#/health")
    expect(page.locator("dl.facts dt").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", [user, users, catalogue, adapters, work, health])
def test_a_view_has_no_serious_violation(
    browser: Browser, demo: str, view: Callable[[Page], None], scheme: str
) -> None:
    with a_page(browser, demo, color_scheme=scheme, reduced_motion="reduce") as watched:
        view(watched.page)
        assert serious_violations(watched.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_empty_system_and_the_dialog_for_the_key_have_none_either(
    browser: Browser, redis_url: str, scheme: str
) -> None:
    with (
        a_world(redis_url) as url,
        a_page(browser, url, color_scheme=scheme, reduced_motion="reduce") as watched,
    ):
        page = watched.page
        page.goto("/")
        expect(page.locator(".message")).to_be_visible()
        assert serious_violations(page) == []
        page.evaluate("dispatchEvent(new CustomEvent('key-needed'))")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert serious_violations(page) == []
