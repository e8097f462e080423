"""What people come for, in the demo world, with the demo model."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import PHONE, Watched, a_page, open_user

pytestmark = pytest.mark.browser


def test_users_are_found_by_the_beginning_of_their_id(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.get_by_text("30 users")).to_be_visible()
    page.get_by_label("Find by the beginning").fill("user-0001")
    expect(page.locator(".people .id")).to_have_text([f"user-0001{k}" for k in range(10)])
    page.locator(".person").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("user-00010")


def test_a_page_shows_history_preference_timeline_and_scores(watched: Watched) -> None:
    page = watched.page
    open_user(page, "user-00003")
    assert page.locator(".strip figure").count() >= 7
    expect(page.locator(".strip img").last).to_have_js_property("complete", True)
    expect(page.locator(".preference .text")).to_contain_text("Likes")
    expect(page.locator(".timeline")).to_contain_text("Block 2")
    expect(page.locator(".timeline ins, .timeline del").first).to_be_visible()
    expect(page.locator(".yes .number").first).to_have_text(re.compile(r"\d+\.\d %"))
    page.locator(".place summary").first.click()
    expect(page.locator(".place").first).to_contain_text("The model's margin")


def test_an_interaction_changes_preference_and_ranking_at_once(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    page = watched.page
    open_user(page, "user-00004")
    version = int(page.locator(".preference .text").get_attribute("data-version") or 0)
    taken = page.locator(".place .name").nth(2).text_content()
    page.evaluate(_TIME_UNTIL_NEWER)
    page.locator(".take").nth(2).click()
    expect(page.locator(".preference .text")).to_have_attribute("data-version", str(version + 1))
    milliseconds = page.evaluate("window.untilNewer")
    with capsys.disabled():
        print(f"\nfrom a click to the new preference on screen: {milliseconds:.0f} ms")
    expect(page.locator(".strip figcaption").last).to_have_text(taken or "")
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    expect(page.locator(".place .name").filter(has_text=taken)).to_have_count(0)


# From the next click until the preference's version changes.
_TIME_UNTIL_NEWER = """
document.addEventListener("click", () => {
  const started = performance.now();
  const was = document.querySelector(".preference .text").dataset.version;
  new MutationObserver((_, observer) => {
    if (document.querySelector(".preference .text")?.dataset.version === was) return;
    window.untilNewer = performance.now() - started;
    observer.disconnect();
  }).observe(document.querySelector(".preference"), { childList: true, subtree: true });
}, { once: true, capture: true });
"""


def test_somebody_new_gets_what_is_trending_and_a_preference_of_their_own(
    watched: Watched,
) -> None:
    page = watched.page
    page.goto("/")
    page.get_by_role("button", name="Be somebody new").click()
    expect(page.locator(".preference")).to_contain_text("Nothing is known yet")
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    page.locator(".take").first.click()
    expect(page.locator(".preference .text")).to_contain_text("Likes")
    expect(page.locator(".live")).to_have_text("Live")


def test_interactions_from_elsewhere_are_seen_too(watched: Watched, demo: str) -> None:
    page = watched.page
    open_user(page, "user-00005")
    known = page.locator(".strip figure").count()
    body = {"user_id": "user-00005", "item_id": "item-00001"}
    assert page.request.post(f"{demo}/interactions", data=body).status == 202
    expect(page.locator(".strip figure")).to_have_count(known + 1)
    expect(page.locator(".preference")).to_contain_text(f"Covers all {known + 1} interactions")


def test_a_new_ranking_leaves_the_focus_on_the_control_that_had_it(
    watched: Watched, demo: str
) -> None:
    page = watched.page
    open_user(page, "user-00007")
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    # The same ranking comes again, so that the item is still there.
    asked = {"user_id": "user-00007", "k": 20}
    ranking = page.request.post(f"{demo}/recommend", data=asked).json()
    page.route("**/recommend", lambda route: route.fulfill(json=ranking))
    summary = page.locator(f"[data-item={ranking['items'][3]['item_id']}] summary")
    summary.focus()
    page.locator(".place").first.evaluate("place => place.dataset.before = ''")
    body = {"user_id": "user-00007", "item_id": "item-00001"}
    assert page.request.post(f"{demo}/interactions", data=body).status == 202
    expect(page.locator("[data-before]")).to_have_count(0)
    expect(summary).to_be_focused()


def test_the_catalogue_is_searched_and_shows_what_the_model_sees(watched: Watched) -> None:
    page = watched.page
    page.goto("/#/catalogue")
    expect(page.locator(".item")).to_have_count(48)
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".item")).to_have_count(12)
    page.get_by_label("Find by words").fill("kit lon")
    expect(page.locator(".item h2").first).to_contain_text(re.compile("kite", re.IGNORECASE))
    for title in page.locator(".item h2").all_text_contents():
        assert "kite" in title.lower()
        assert "lonely" in title.lower()
    expect(page.locator(".item .summary").first).to_contain_text("kite in")


def test_steps_adapters_and_health_are_reported(watched: Watched) -> None:
    page = watched.page
    page.goto("/#/work")
    expect(page.locator(".step").filter(has_text="summarize-images")).to_contain_text("Done")
    page.goto("/#/adapters")
    expect(page.locator(".adapter").filter(has_text="Active")).to_contain_text("chrono-uniform")
    # The shipped adapter was validated on other users than this catalogue's, and says so.
    expect(page.locator(".adapter").first).to_contain_text("measured on another catalogue")
    page.goto("/#/health")
    expect(page.get_by_text("MSR demo model").first).to_be_visible()
    expect(page.locator(".component")).to_have_count(6)
    # This small world is not the one that the model's card names.
    expect(page.locator(".component .badge")).to_have_text(["Degraded", *["Well"] * 4, "Degraded"])
    expect(page.locator("#notice")).to_contain_text("knows its own catalogue only, not this one")
    expect(page.locator("dl.facts")).to_contain_text("Prompt: scoring")


def test_the_theme_follows_the_system_until_one_is_chosen(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark")
    page.goto("/")
    surface = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(surface)
    page.get_by_role("button", name="Theme: auto").click()
    light = page.evaluate(surface)
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(surface) == light != dark


def test_a_phone_shows_all_without_scrolling_sideways(browser: Browser, demo: str) -> None:
    with a_page(browser, demo, viewport=PHONE, has_touch=True, is_mobile=True) as watched:
        page = watched.page
        open_user(page, "user-00003")
        for view in ("users/user-00003", "users", "catalogue", "adapters", "work", "health"):
            page.goto(f"/#/{view}")
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
        assert watched.all_faults() == []


def test_all_can_be_done_by_keyboard(watched: Watched) -> None:
    page = watched.page
    page.goto("/")
    expect(page.locator(".person").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Find by the beginning")).to_be_focused()
    page.keyboard.type("user-00006")
    expect(page.locator(".person")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("user-00006")
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    version = int(page.locator(".preference .text").get_attribute("data-version") or 0)
    tab_until(page, ".take")
    page.keyboard.press("Enter")
    expect(page.locator(".preference .text")).to_have_attribute("data-version", str(version + 1))
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    tab_until(page, ".place summary")
    page.keyboard.press("Enter")
    expect(page.locator(".place details[open]")).to_have_count(1)


def tab_until(page: Page, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"no Tab leads to {selector}")
