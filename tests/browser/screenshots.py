"""Images of the console for the README, taken in the whole demo world.

python -m tests.browser.screenshots docs/images
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import PHONE, a_browser, a_page, open_user
from tests.browser.servers import prepare_demo, the_demo

USER = "user-00000"
MAX_BYTES = 200_000
# Those out of sight are not even asked for before somebody scrolls.
_COVERS_IN_SIGHT = """Promise.all([...document.images].filter((each) => {
  const { x, y, width, height } = each.getBoundingClientRect();
  return document.elementFromPoint(x + width / 2, y + height / 2) === each;
}).map((each) => each.decode()))"""


def take_all(folder: Path) -> None:
    """Prepare the demo world, serve it, and write the images into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare_demo(Path(scratch), num_items=480, num_users=500)
        with the_demo(data, Path(scratch) / "serve.log") as url, a_browser() as browser:
            _take(browser, url, folder)


def _take(browser: Browser, url: str, folder: Path) -> None:
    with a_page(browser, url, color_scheme="light") as watched:
        page = watched.page
        open_user(page, USER)
        _take_another_turn(page)
        _save(page, folder / "console-user-light.png")
        page.goto("/#/catalogue")
        expect(page.locator(".item img").nth(20)).to_be_attached()
        _save(page, folder / "console-catalogue.png")
    with a_page(browser, url, color_scheme="dark") as watched:
        open_user(watched.page, USER)
        _save(watched.page, folder / "console-user-dark.png")
    with a_page(browser, url, viewport=PHONE, device_scale_factor=2, is_mobile=True) as watched:
        open_user(watched.page, USER)
        _save(watched.page, folder / "console-user-phone.png")


def _take_another_turn(page: Page) -> None:
    """The user takes three items of another taste, elsewhere; preference and ranking follow."""
    found = page.request.get("/items", params={"limit": 200}).json()["items"]
    other = [each for each in found if "blue" in each["summary"] and "striped" in each["summary"]]
    taken = [{"user_id": USER, "item_id": each["item_id"]} for each in other[:3]]
    text = page.locator(".preference .text")
    version = int(text.get_attribute("data-version") or 0)
    assert page.request.post("/interactions", data={"interactions": taken}).ok
    expect(text).to_have_attribute("data-version", str(version + len(taken)))
    expect(page.locator(".ranking:not([aria-busy]) .place")).to_have_count(20)
    page.locator(".place summary").first.click()


def _save(page: Page, path: Path) -> None:
    """What is in view once every cover there is loaded, as a small PNG."""
    page.evaluate(_COVERS_IN_SIGHT)
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    image.quantize(256).save(path, optimize=True)
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path} has {size:,} bytes"
    print(f"{path}: {size:,} bytes")


if __name__ == "__main__":
    take_all(Path(sys.argv[1]))
