"""A program in a process group of its own that never outlives the program that started it.

vLLM runs several processes. If their parent were killed, the others would keep the GPU's memory. So
the group has a guard: a shell that reads from a pipe which only this program holds open. However
this program ends, the pipe closes and the guard kills the group. The group also keeps a terminal's
Ctrl-C away from vLLM: this program passes the signal on, once.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import zip_longest

_GUARD = ("sh", "-c", "read _; kill -KILL 0")
# The line of a Python traceback that names what went wrong, with what vLLM's logger puts before it.
_RAISED = re.compile(r"(?:\(\w+ pid=\d+\) )?(?:ERROR [^]]*\] )?([\w.]*(?:Error|Exception): .*)")
_KEPT_LINES = 400


class ProcessGroup:
    """One running program, its children, and the guard. Start it with `start`, end it with `end`.

    What it prints goes on to stderr, and the end of it is kept.
    """

    def __init__(
        self,
        guard: "subprocess.Popen[bytes]",
        leader: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
    ) -> None:
        """Use `start`."""
        self._guard = guard
        self._leader = leader
        self._output = output
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._copying = asyncio.create_task(self._copy_output())

    @classmethod
    async def start(
        cls, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> "ProcessGroup":
        """Run the command with these variables beside our own."""
        # The guard comes first, so that there is no moment without one.
        guard = subprocess.Popen(  # noqa: ASYNC220, S603 - it is running at once; no input in it
            _GUARD, stdin=subprocess.PIPE, process_group=0
        )
        # A pipe of ours: with asyncio's, `wait` would wait for children that hold it open, too.
        reading, writing = os.pipe()
        try:
            leader = await asyncio.create_subprocess_exec(
                *arguments,
                env=os.environ | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                process_group=guard.pid,
            )
        except BaseException:
            os.close(reading)
            guard.kill()
            guard.wait()
            raise
        finally:
            os.close(writing)
        output = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reading, "rb")
        )
        return cls(guard, leader, output)

    async def wait(self) -> int:
        """The program's exit status, as a shell has it: 128 + n if signal n ended it."""
        status = await self._leader.wait()
        return status if status >= 0 else 128 - status

    def send(self, number: int) -> None:
        """Pass a signal on to the program itself, which tells its children in its own way."""
        with contextlib.suppress(ProcessLookupError):
            self._leader.send_signal(number)

    async def end(self) -> None:
        """Kill what is left of the group, and read the last of its output."""
        if self._guard.returncode is None:  # not waited for yet, so the number is still our group's
            os.killpg(self._guard.pid, signal.SIGKILL)
            self._guard.wait()
        await self._leader.wait()
        await self._copying

    def failure_reason(self) -> str:
        """Why it ended, by its own output: the first error in it, else its last line.

        Complete after `end`.
        """
        lines = list(self._lines)
        for line, following in zip_longest(lines, lines[1:], fillvalue=""):
            if raised := _RAISED.fullmatch(line):
                # Some errors say on the next line, indented, what is wrong.
                detail = f" {following.strip()}" if following.startswith("  ") else ""
                return raised[1] + detail
        return lines[-1] if lines else "it said nothing"

    async def _copy_output(self) -> None:
        unfinished = b""
        while read := await self._output.read(65536):
            with contextlib.suppress(OSError):  # a closed stderr must not stall the program
                sys.stderr.write(read.decode(errors="replace"))
                sys.stderr.flush()
            *lines, unfinished = (unfinished + read).split(b"\n")
            self._lines.extend(line.decode(errors="replace") for line in lines if line.strip())
