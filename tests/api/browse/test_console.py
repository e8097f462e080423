"""The console's files: their headers. tests/browser has the console itself."""

import gzip
import re

import pytest

from services.api.browse.console_files import FOLDER, read_console
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, an_app, send


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="(/console/[^"]+)"', page)


async def test_the_page_needs_no_key_and_names_files_that_are_kept_for_good(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    page = await send(app, "GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert addresses(page.text)
    for address in addresses(page.text):
        answer = await send(app, "GET", address)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)


@pytest.mark.parametrize("path", ["/", f"/console/{read_console().digest}/app.js"])
async def test_nothing_inline_and_nothing_from_elsewhere_may_run(store: Store, path: str) -> None:
    policy = (await send(an_app(store), "GET", path)).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["../main.py", "..%2Fmain.py", "nothing.js", "index.html"])
async def test_nothing_but_the_assets_is_served(store: Store, name: str) -> None:
    response = await send(an_app(store), "GET", f"/console/{read_console().digest}/{name}")
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")


async def test_files_of_another_version_are_not_served(store: Store) -> None:
    assert (await send(an_app(store), "GET", "/console/0123456789abcdef/app.js")).status_code == 404


async def test_a_file_is_compressed_for_who_can_read_that_and_sent_once(store: Store) -> None:
    app = an_app(store)
    zipped = await send(app, "GET", "/", headers={"Accept-Encoding": "gzip"})
    plain = await send(app, "GET", "/", headers={"Accept-Encoding": "identity"})
    tag = {"If-None-Match": plain.headers["etag"]}
    assert (zipped.headers["content-encoding"], zipped.content) == ("gzip", plain.content)
    assert gzip.decompress(read_console().page.zipped) == plain.content
    assert (await send(app, "GET", "/", headers=tag)).status_code == 304


def test_no_script_makes_markup_of_text() -> None:
    scripts = {path.name: path.read_text() for path in FOLDER.glob("*.js")}
    assert scripts
    for name, script in scripts.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", script), (
            name
        )
