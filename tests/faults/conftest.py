"""A Redis of each test's own, behind a network that the test can cut."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.faults.network import Network
from benchmarks.faults.supervised_process import ended_after, free_port, redis_server
from services.state.user_store import Store
from tests.builders import put_items, some_ids


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    port = free_port()
    redis = redis_server(tmp_path, port)
    with ended_after([redis]):
        await redis.start()
        async with Network(port) as network:
            yield network


@pytest.fixture
async def store(network: Network) -> AsyncIterator[Store]:
    """Straight to Redis, past the network; it holds the items i1 to i9."""
    store = await Store.open(network.redis_url)
    await put_items(store, some_ids(9))
    yield store
    await store.close()


@pytest.fixture
async def far_store(network: Network, store: Store) -> AsyncIterator[Store]:
    """Through the network."""
    far_store = await Store.open(network.url, timeout_seconds=0.5)
    yield far_store
    await far_store.close()
