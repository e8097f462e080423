"""Debian's Chromium, driven by Playwright, and pages that note whatever they should not do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, ViewportSize, expect, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
});
"""


# Only keeps a broken test from hanging.
expect.set_options(timeout=60_000)


@contextmanager
def a_browser() -> Iterator[Browser]:
    """The browser on PATH; AssertionError if there is none."""
    path = shutil.which("chromium")
    assert path is not None, "no chromium on PATH; run `make test-browser`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did that no page of ours may do."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def refuse_dialog(self, dialog: Dialog) -> None:
        """Close it, and remember that there was one."""
        self.faults.append("a dialog")
        dialog.dismiss()

    def all_faults(self) -> list[str]:
        """Errors, dialogs and violations of the policy, so far."""
        return [*self.faults, *self.page.evaluate("window.violations")]


@contextmanager
def a_page(
    browser: Browser, url: str, *, viewport: ViewportSize = DESKTOP, **context: Any
) -> Iterator[Watched]:
    """A page of a context of its own; paths are relative to `url`."""
    with browser.new_context(base_url=url, viewport=viewport, **context) as opened:
        page = opened.new_page()
        watched = Watched(page)
        page.add_init_script(_WATCH)
        page.on("pageerror", lambda error: watched.faults.append(f"error: {error}"))
        page.on("dialog", watched.refuse_dialog)
        yield watched


def open_user(page: Page, user_id: str) -> None:
    """A user's page of the demo, with everything that the model has to say."""
    page.goto(f"/#/users/{user_id}")
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    expect(page.locator(".preference .text")).to_be_visible()


def serious_violations(page: Page) -> list[str]:
    """What axe-core finds on a page, with the elements."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
