"""The line on stdout by which a server says that it answers, and who can reach it.

    listening on http://127.0.0.1:8000

Tests, benchmarks and scripts wait for this line instead of polling, and read the port from it if
they asked for port 0.
"""

import ipaddress
from typing import IO

LISTENING = "listening on "


def announce(url: str) -> None:
    """Print the line, unbuffered."""
    print(f"{LISTENING}{url}", flush=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def wait_until_listening(stdout: IO[str]) -> str | None:
    """Read a program's stdout up to the line; the base URL, or None if it ended without one."""
    for line in stdout:
        if line.startswith(LISTENING):
            return line.removeprefix(LISTENING).strip()
    return None
