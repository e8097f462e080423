"""`msr worker` over the digest engine instead of a model.

    python -m benchmarks.faults.worker REDIS_URL

The worker is the product's own. It only waits less: it claims what a killed worker left after one
second instead of twenty, so that a run sees the work of every kill come back while it lasts.
"""

import asyncio
import signal
import sys

from benchmarks.faults.digest_engine import DigestEngine
from services.deployment.settings import Settings
from services.process.logs import configure
from services.state.user_store import Store
from services.worker.limits import WorkerLimits
from services.worker.main import Worker

SECONDS_A_TEXT = 0.02
LIMITS = WorkerLimits(
    first_pause_seconds=0.05,
    longest_pause_seconds=0.5,
    lease_seconds=1.0,
    claim_after_seconds=1.0,
    claim_every_seconds=0.25,
)


async def work(redis_url: str) -> None:
    """Update preferences until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = await Store.open(redis_url, timeout_seconds=Settings().redis_timeout_seconds)
    try:
        await Worker(store, DigestEngine(SECONDS_A_TEXT), LIMITS).run(stop)
    finally:
        await store.close()


if __name__ == "__main__":
    configure(level="info")
    asyncio.run(work(sys.argv[1]))
