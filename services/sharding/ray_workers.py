"""Ray Data workers that hold an engine each and do a step's shards, one at a time.

    msr summarize-images --data s3://bucket/data --ray ray-head:6379

A worker reads what a shard needs from the data folder and writes the shard there; Ray transports
only the shard's number. So every node must see the data folder and the model's folder, and a run
can resume another one, with Ray or without. When a worker dies, Ray starts another one and the
shard is done again.

Errors of this project travel as values: Ray would wrap exceptions and retry, and a worker that
finds no model must end the step with a clear message.
"""

import asyncio
import logging
import os
import pickle
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from services.core.errors import (
    ArtifactMissing,
    EngineUnavailable,
    InputError,
    ModelUnusable,
    MsrError,
)
from services.engines.contract import Engine, EngineIdentity
from services.sharding.sharded_job import Advance, ShardJob, run_here

log = structlog.get_logger(__name__)

OpenEngine = Callable[[], Awaitable[Engine]]

# The names of Ray Data's threads in this process, and how long they are waited for.
_RAY_DATA_THREADS = ("StreamingExecutor", "ray-data-")
_THREADS_SECONDS = 10.0
# What has killed so many workers is the shard itself: too large for the memory, say.
MAX_SHARD_RETRIES = 3


class RayWorkers:
    """Takes the place of a step's engine. Open it with `RayWorkers.start`, close it after use."""

    def __init__(self, open_engine: OpenEngine, identity: EngineIdentity, slots: "Slots") -> None:
        """Use `start`."""
        self.identity = identity  # which weights answer on every worker
        self._open_engine = open_engine
        self._slots = slots

    @classmethod
    async def start(
        cls,
        open_engine: OpenEngine,
        identity: EngineIdentity,
        *,
        address: str = "",
        num_workers: int | None = None,
        uses_gpu: bool,
    ) -> "RayWorkers":
        """Join the cluster at the address; without one that to which this machine belongs, else one
        of its own.

        Every worker calls `open_engine`, which must give an engine of this identity. Raises
        EngineUnavailable if there is no such cluster, InputError if it is too small for so many.
        """
        await asyncio.to_thread(_join, address)
        try:
            slots = divide_nodes(_resources_of_nodes(), num_workers, uses_gpu=uses_gpu)
        except InputError:
            await asyncio.to_thread(_shut_down)
            raise
        log.info("ray_joined", num_workers=slots.num_workers, gpus_each=slots.num_gpus)
        return cls(open_engine, identity, slots)

    async def run_shards(self, job: ShardJob, shards: Sequence[int], advance: Advance) -> int:
        """Do the shards, in any order; how many prompts were shortened for being too long.

        Raises what workers raise of our errors, ArtifactMissing if what they write is not seen
        here, EngineUnavailable if they keep dying.
        """
        if not shards:
            return 0
        num_shortened = 0
        reports = self._reports(job, shards)
        try:
            while (report := await asyncio.to_thread(next, reports, None)) is not None:
                await asyncio.to_thread(_require_written, job, report)
                advance(report.progress)
                num_shortened += report.num_shortened
        except Exception:
            # Ends the workers. If we are cancelled, a thread still waits for them; `close` ends it.
            await asyncio.to_thread(_end, reports)
            raise
        await asyncio.to_thread(_end, reports)
        return num_shortened

    async def close(self) -> None:
        """Leave the cluster, which ends the workers."""
        await asyncio.to_thread(_shut_down)

    def _reports(
        self, job: ShardJob, shards: Sequence[int]
    ) -> "Generator[_ShardReport, None, None]":
        import ray

        sent = ray.cloudpickle.dumps((self._open_engine, self.identity, job))
        rows = ray.data.from_items([{"shard": k} for k in shards], override_num_blocks=len(shards))
        with warnings.catch_warnings():
            # Retries without end are Ray Data's default; its other ways to bound them are to come.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            reports = rows.map_batches(
                _Worker,
                fn_constructor_args=(sent,),
                batch_size=1,
                # One task at a time: a dead worker costs one shard, and none waits for a slow one.
                compute=ray.data.ActorPoolStrategy(
                    size=min(self._slots.num_workers, len(shards)), max_tasks_in_flight_per_actor=1
                ),
                num_cpus=self._slots.num_cpus,
                num_gpus=self._slots.num_gpus,
                max_task_retries=MAX_SHARD_RETRIES,
            )
        try:
            for row in reports.iter_rows():
                yield pickle.loads(row["report"])  # noqa: S301  # nosec B301  our own worker's
        except (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError) as error:
            raise EngineUnavailable(
                f"Ray workers died {MAX_SHARD_RETRIES + 1} times over one shard ({error}); what is "
                "finished is kept: give the nodes more memory, then run the step again"
            ) from error


@dataclass(frozen=True, slots=True)
class Slots:
    """How many workers, and what of its node each takes."""

    num_workers: int
    num_cpus: int
    num_gpus: int


def divide_nodes(
    nodes: Sequence[Mapping[str, float]], num_workers: int | None, *, uses_gpu: bool
) -> Slots:
    """Divide nodes, given as their `CPU` and `GPU` counts, among workers.

    By default a worker a GPU; where there are none, or the engine computes elsewhere, one a node.
    InputError if there are fewer GPUs or CPUs than workers.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if uses_gpu else 0
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    num_workers = num_workers or gpus or len(cpus)
    available, unit = (gpus, "GPUs") if gpus else (sum(cpus), "CPU cores")
    if not 0 < num_workers <= available:
        raise InputError(
            f"the Ray cluster has {available} {unit} on {len(nodes)} nodes, too few for "
            f"{num_workers} workers; lower --ray-workers, or add nodes"
        )
    if gpus:
        return Slots(num_workers, num_cpus=1, num_gpus=1)
    # Ray lets torch have as many threads as a worker has CPUs, so a node's are divided up.
    workers_a_node = -(-num_workers // len(cpus))
    return Slots(num_workers, num_cpus=max(1, min(cpus) // workers_a_node), num_gpus=0)


def _require_written(job: ShardJob, report: "_ShardReport") -> None:
    """Raise what kept a worker from its shard, or that the shard is not seen here."""
    if report.error is not None:
        raise report.error
    if not job.has_shard(report.shard):
        raise ArtifactMissing(
            f"the Ray worker on {report.node} has written shard {report.shard} where this machine "
            "does not see it; name a data folder that all nodes share, and install the same "
            "version on all of them"
        )


# --- on the workers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ShardReport:
    """What a worker reports of one shard."""

    shard: int
    node: str
    progress: int = 0
    num_shortened: int = 0
    error: MsrError | None = None


class _Worker:
    """An actor of Ray Data: opens its engine at the first shard, does one shard a call."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._runner = asyncio.Runner()
        self._opened: tuple[Engine, ShardJob] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[bytes]]:
        (shard,) = batch["shard"].tolist()
        try:
            report = self._runner.run(self._do(shard))
        except MsrError as error:
            report = _ShardReport(shard, socket.gethostname(), error=error)
        return {"report": [pickle.dumps(report)]}

    async def _do(self, shard: int) -> _ShardReport:
        if self._opened is None:
            self._opened = await self._open()
        engine, job = self._opened
        done: list[int] = []
        num_shortened = await run_here(engine, job, [shard], done.append)
        return _ShardReport(shard, socket.gethostname(), sum(done), num_shortened)

    async def _open(self) -> tuple[Engine, ShardJob]:
        node = socket.gethostname()
        try:
            open_engine, identity, job = pickle.loads(self._sent)  # noqa: S301  # nosec B301  our own driver's
        except ArtifactMissing as error:  # a job reads what it works on
            raise ArtifactMissing(
                f"the Ray worker on {node}: {error}; if it has, name a data folder that all nodes "
                "share"
            ) from error
        engine: Engine = await open_engine()
        if engine.identity != identity:
            await engine.close()
            raise ModelUnusable(
                f"the Ray worker on {node} opened {engine.identity}, not {identity}; give "
                "every node the same model and adapter under the same names"
            )
        return engine, job


# --- the cluster ---------------------------------------------------------------------------------


def _join(address: str) -> None:
    # Ray reads these when it is imported. Nothing about a deployment leaves it, and what still runs
    # after we left a cluster must not start another one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError("Ray is not installed here; run `pip install 'mllm-msr[ray]'`") from error
    try:
        if ":" in address:
            _require_listening(address)
        ray.init(address=address or None, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineUnavailable(
            f"no Ray cluster answers at {address or 'this machine'} ({error}); start one with "
            "`ray start --head`, or give --ray no address to have one for this step"
        ) from error
    # An error that ends a step is raised, so Ray need not log it too.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # a step shows its own
    context.print_on_execution_start = False


def _require_listening(address: str) -> None:
    """OSError if nothing listens there: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def _end(reports: "Generator[_ShardReport, None, None]") -> None:
    """End the execution, and wait for Ray Data's own threads, which may outlive it for a moment:
    one that still asks Ray when this process has left the cluster ends the process.
    """
    reports.close()
    for thread in threading.enumerate():
        if thread.name.startswith(_RAY_DATA_THREADS):
            thread.join(_THREADS_SECONDS)


def _shut_down() -> None:
    import ray

    ray.shutdown()


def _resources_of_nodes() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
