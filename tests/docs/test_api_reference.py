"""The API reference is that of this API."""

from services.api.reference import replace_reference
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, an_app
from tests.docs.documents import ROOT

PAGE = ROOT / "docs" / "api.md"


def test_the_reference_describes_the_api_as_it_is(store: Store):
    page = PAGE.read_text(encoding="utf-8")

    current = replace_reference(page, an_app(store, rules=WITH_KEYS).openapi())

    assert page == current, "the API changed: run `make api-reference`"
