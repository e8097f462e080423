"""One browser for all, the demo served once, and a page that must end without a fault."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import Watched, a_browser, a_page
from tests.browser.servers import prepare_demo, the_demo


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with a_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browser")
    with the_demo(prepare_demo(folder), folder / "serve.log") as url:
        yield url


@pytest.fixture
def watched(browser: Browser, demo: str) -> Iterator[Watched]:
    """A page of the demo."""
    with a_page(browser, demo) as watched:
        yield watched
        assert watched.all_faults() == []
