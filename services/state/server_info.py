"""The condition of the Redis server itself: version, memory, durability, clock."""

from dataclasses import dataclass

from services.state.connection import Connection


@dataclass(frozen=True, slots=True)
class Server:
    """The condition of a Redis server. `max_bytes` is 0 if its memory is not limited.

    `appends`: every write goes to an append-only file. `writes_to_disk`: the last write of that
    file or of a snapshot succeeded. `eviction` is the policy at the memory limit; `in_cluster`: it
    is a node of a Redis Cluster. `time_ms` is its clock.
    """

    version: str
    time_ms: float
    used_bytes: int
    max_bytes: int
    eviction: str
    num_clients: int
    appends: bool
    writes_to_disk: bool
    is_primary: bool
    in_cluster: bool


async def load_server(connection: Connection) -> Server:
    """The condition of the server (on a Redis Cluster: of the node that answers)."""
    info, (seconds, microseconds) = await connection.call_all([("INFO",), ("TIME",)])
    lines = info.decode(errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    written = (fields.get("aof_last_write_status"), fields.get("rdb_last_bgsave_status"))
    return Server(
        version=fields.get("redis_version", ""),
        time_ms=1000 * int(seconds) + int(microseconds) / 1000,
        used_bytes=int(fields.get("used_memory", 0)),
        max_bytes=int(fields.get("maxmemory", 0)),
        eviction=fields.get("maxmemory_policy", ""),
        num_clients=int(fields.get("connected_clients", 0)),
        appends=fields.get("aof_enabled") == "1",
        writes_to_disk="err" not in written,
        is_primary=fields.get("role") != "slave",
        in_cluster=fields.get("cluster_enabled") == "1",
    )
