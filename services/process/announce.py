"""How a server program says that it answers, and who can reach it: one line on stdout, once.

    listening on http://127.0.0.1:8000

Whoever starts one (a test, a benchmark, a script) waits for this line instead of asking again and
again, and learns the port where 0 was asked for.
"""

import ipaddress
from typing import IO

LISTENING = "listening on "


def announce(url: str) -> None:
    """Print the line; whoever waits for it gets it at once."""
    print(f"{LISTENING}{url}", flush=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
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
