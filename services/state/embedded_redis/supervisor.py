"""Keeps an embedded Redis running while any program uses it, then stops it.

`server.py` runs it as `python -I -S supervisor.py USERS_LOCK COMMAND...`; standard library only.
Every program that uses the server holds a shared lock on the file USERS_LOCK. The kernel releases
the lock when a program ends, even by a kill. This process then gets the exclusive lock and sends
SIGTERM to the server, which writes all data to disk. If the server ends in any other way, it is
started again.
"""

import fcntl
import subprocess
import sys
import threading
import time

PAUSE_BEFORE_RESTART_SECONDS = 0.1
QUICK_EXIT_SECONDS = 1.0
MAX_QUICK_EXITS = 3


def main() -> int:
    """Run the command until no program holds the lock; 1 if it keeps ending at once."""
    lock_path, command = sys.argv[1], sys.argv[2:]
    unused = threading.Event()
    running: list[subprocess.Popen[bytes]] = []
    lock = open(lock_path, "rb")  # noqa: SIM115 - held until this process ends

    def stop_after_the_last_user() -> None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unused.set()
        running[0].terminate()

    watcher = threading.Thread(target=stop_after_the_last_user, daemon=True)
    num_quick_exits = 0
    while not unused.is_set() and num_quick_exits < MAX_QUICK_EXITS:
        started = time.monotonic()
        # The server inherits the lock on `redis.running` (server.py).
        running[:] = [subprocess.Popen(command, close_fds=False)]  # noqa: S603
        if watcher.ident is None:
            watcher.start()
        elif unused.is_set():  # the last program left while no server ran
            running[0].terminate()
        running[0].wait()
        quick = time.monotonic() - started < QUICK_EXIT_SECONDS
        num_quick_exits = num_quick_exits + 1 if quick else 0
        unused.wait(PAUSE_BEFORE_RESTART_SECONDS)
    return 0 if unused.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
