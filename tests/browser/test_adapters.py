"""What is changed for everybody is changed after a question only."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from services.state.user_store import Store
from tests.api.adapter_builders import SwappingEngine, put_adapter
from tests.api.builders import an_app, live_adapters
from tests.browser.chromium import PHONE, a_page, serious_violations
from tests.browser.servers import a_world

pytestmark = pytest.mark.browser


def two_adapters(redis_url: str, folder: Path) -> AbstractContextManager[str]:
    """A server whose own adapter is active, and another one that can serve."""
    put_adapter(folder, "summer")

    def build(store: Store) -> FastAPI:
        engine = SwappingEngine()
        return an_app(store, engine, adapters=live_adapters(store, engine, folder))

    return a_world(redis_url, build=build)


@pytest.fixture
def adapters_page(browser: Browser, redis_url: str, tmp_path: Path) -> Iterator[Page]:
    """The adapters' view of two adapters, which must end without a fault."""
    with two_adapters(redis_url, tmp_path) as url, a_page(browser, url) as watched:
        watched.page.goto("/#/adapters")
        expect(watched.page.locator(".setup")).to_have_count(2)
        yield watched.page
        assert watched.all_faults() == []


def answer(page: Page, button: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=button).click()


def test_adapters_are_activated_and_rolled_back_after_a_question(
    browser: Browser, redis_url: str, tmp_path: Path
) -> None:
    with two_adapters(redis_url, tmp_path) as url, a_page(browser, url) as watched:
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


def test_an_experiment_is_started_by_keyboard_and_ended(adapters_page: Page) -> None:
    page = adapters_page
    page.get_by_label("Name").focus()
    page.keyboard.type("spring trial")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)  # a name holds no space
    page.get_by_label("Name").fill("trial")
    page.get_by_label("Users in B").fill("25")
    page.get_by_label("Users in B").press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("own scores for 75 % of the users")
    answer(page, "Cancel")
    expect(page.locator(".arms")).to_have_count(0)
    page.get_by_role("button", name="Start the experiment").click()
    answer(page, "Start it")
    expect(page.locator(".arms li")).to_contain_text(["a: own75 %", "b: summer25 %"])
    running = page.request.get("/adapters").json()["experiment"]
    assert [(arm["adapter"], arm["share"]) for arm in running["arms"]] == [
        ("own", 0.75), ("summer", 0.25),
    ]  # fmt: skip
    assert serious_violations(page) == []
    page.get_by_role("button", name="End the experiment").click()
    answer(page, "End it")
    expect(page.get_by_role("button", name="Start the experiment")).to_be_visible()


def test_both_arms_cannot_be_the_same_adapter(adapters_page: Page) -> None:
    page = adapters_page
    page.get_by_label("Name").fill("trial")
    page.get_by_label("Arm B").select_option("own")
    page.get_by_role("button", name="Start the experiment").click()
    assert page.get_by_label("Arm B").evaluate("field => field.validationMessage") != ""
    page.get_by_label("Arm A").select_option("summer")
    page.get_by_role("button", name="Start the experiment").click()
    expect(page.get_by_role("dialog")).to_contain_text("summer scores for 90 %")


def test_a_shadow_is_set_and_stopped(adapters_page: Page) -> None:
    page = adapters_page
    expect(page.get_by_label("Adapter", exact=True)).to_have_text("summer")
    page.get_by_label("Requests").fill("40")
    page.get_by_role("button", name="Set the shadow").click()
    expect(page.get_by_role("dialog")).to_contain_text("After 40 % of the requests")
    answer(page, "Let it")
    expect(page.locator(".experiments")).to_contain_text("summer scores 40 % of the requests along")
    assert page.request.get("/adapters").json()["shadow"] == {"adapter": "summer", "share": 0.4}
    assert serious_violations(page) == []
    page.get_by_role("button", name="Stop the shadow").click()
    answer(page, "Stop it")
    expect(page.get_by_role("button", name="Set the shadow")).to_be_visible()
    assert page.request.get("/adapters").json()["shadow"] is None


def test_what_the_server_refuses_is_reported_and_the_form_stays_as_it_was(
    adapters_page: Page, tmp_path: Path
) -> None:
    page = adapters_page
    shutil.rmtree(tmp_path / "summer")
    page.get_by_label("Name").fill("trial")
    page.get_by_role("button", name="Start the experiment").click()
    answer(page, "Start it")
    expect(page.locator(".toast.bad")).to_contain_text("summer")
    expect(page.get_by_label("Name")).to_have_value("trial")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_forms_have_no_serious_violation_and_fit_a_phone(
    browser: Browser, redis_url: str, tmp_path: Path, scheme: str
) -> None:
    with (
        two_adapters(redis_url, tmp_path) as url,
        a_page(browser, url, viewport=PHONE, color_scheme=scheme) as watched,
    ):
        page = watched.page
        page.goto("/#/adapters")
        expect(page.locator(".setup")).to_have_count(2)
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_with_one_adapter_there_is_nothing_to_try_and_the_page_says_why(
    browser: Browser, redis_url: str
) -> None:
    with a_world(redis_url) as url, a_page(browser, url) as watched:
        page = watched.page
        page.goto("/#/adapters")
        expect(page.locator(".experiments .panel")).to_contain_text(["can serve", "can serve"])
        expect(page.locator(".setup")).to_have_count(0)
        assert watched.all_faults() == []
