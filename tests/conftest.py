"""A real Redis for every test that asks for one, emptied before each."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.state.embedded import EmbeddedRedis
from services.state.store import Store


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    embedded = EmbeddedRedis(tmp_path_factory.mktemp("redis"), fsync="everysec")
    yield embedded.start()
    embedded.stop()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = await Store.open(redis_url)
    await store.connection.call("FLUSHALL")
    yield store
    await store.close()
