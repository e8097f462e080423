"""How soon twenty recommendations are on the screen, and what they weigh."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import a_page, open_user

pytestmark = pytest.mark.browser

BAR_BYTES = 300_000
# When the twentieth was first there, since the navigation began.
_WATCH_PLACES = """
new MutationObserver((_, observer) => {
  if (document.querySelectorAll(".place .name").length < 20) return;
  window.shownAfter = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""
_TRANSFERRED = """() => {
  const entries = performance.getEntriesByType("resource").filter(
    (entry) => !entry.name.includes("/cover"));
  const page = performance.getEntriesByType("navigation")[0];
  return [...entries, page].reduce((sum, entry) => sum + entry.transferSize, 0);
}"""


def test_twenty_recommendations_are_light_and_soon_there(
    browser: Browser, demo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_page(browser, demo) as warm:  # the model's first prompts, not the console's
        open_user(warm.page, "user-00007")
    with a_page(browser, demo) as watched:
        page = watched.page
        page.add_init_script(_WATCH_PLACES)
        open_user(page, "user-00008")
        expect(page.locator(".strip img").first).to_have_js_property("complete", True)
        transferred, shown_after = page.evaluate(_TRANSFERRED), page.evaluate("window.shownAfter")
        with capsys.disabled():
            print(
                f"\nfirst view: {transferred:,} bytes without covers, 20 recommendations there "
                f"after {shown_after:.0f} ms"
            )
        assert 0 < transferred < BAR_BYTES
        assert shown_after > 0
        assert watched.all_faults() == []
