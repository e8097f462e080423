"""What is changed for everybody is changed after a question only."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from services.state.store import Store
from tests.api.adapter_builders import SwappingEngine, put_adapter
from tests.api.builders import an_app, live_adapters
from tests.browser.chromium import a_page
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser


def answer(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


def test_adapters_are_activated_and_rolled_back_after_a_question(
    browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    put_adapter(tmp_path, "summer")

    def build(store: Store) -> FastAPI:
        engine = SwappingEngine()
        return an_app(store, engine, adapters=live_adapters(store, engine, tmp_path))

    with a_world(redis_url, build=build) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/adapters")
        summer = page.locator(".adapter").filter(has_text="summer")
        own = page.locator(".adapter").filter(has_text="own")
        expect(own).to_contain_text("Active")
        summer.get_by_role("button", name="Activate").click()
        answer(page, "Cancel")
        expect(own).to_contain_text("Active")
        summer.get_by_role("button", name="Activate").click()
        answer(page, "Activate")
        expect(summer).to_contain_text("Active")
        page.get_by_role("button", name="Roll back to own").click()
        answer(page, "Roll back")
        expect(own).to_contain_text("Active")
        arms = [{"name": "a", "adapter": "own", "weight": 3}, {"name": "b", "adapter": "summer"}]
        body = {"name": "trial", "arms": arms}
        assert page.request.put(f"{url}/adapters/experiment", data=body).ok
        page.reload()
        expect(page.locator(".arms")).to_contain_text("75 %")
        expect(summer.get_by_role("button", name="Activate")).to_be_disabled()
        page.get_by_role("button", name="End the experiment").click()
        answer(page, "End it")
        expect(page.locator(".arms")).to_have_count(0)
        assert watched.all_faults() == []
