"""The API reference is that of this API."""

import runpy

from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, an_app
from tests.docs.documents import ROOT

PAGE = ROOT / "docs" / "api.md"
TOOL = runpy.run_path(str(ROOT / ".ci" / "api_reference.py"))


def test_the_reference_describes_the_api_as_it_is(store: Store):
    page = PAGE.read_text(encoding="utf-8")

    current = TOOL["replace_reference"](page, an_app(store, rules=WITH_KEYS).openapi())

    assert page == current, "the API changed: run `make api-reference`"
