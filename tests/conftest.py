"""A real Redis, emptied before each test, and a Ray cluster of two nodes, for those that ask."""

from collections.abc import AsyncIterator, Iterator

import pytest

from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store


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


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Two nodes with one CPU core each: processes of their own on this machine."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 1024 * 1024}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()
