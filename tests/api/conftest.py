"""The store of the API's tests holds the catalogue of `builders`."""

import pytest

from services.state.user_store import Store
from tests.api.builders import put_catalogue


@pytest.fixture
async def store(store: Store) -> Store:
    await put_catalogue(store)
    return store
