"""A compose project of its own: the CPU stack with the demo model, as a user starts it."""

import os
import subprocess
import time
from pathlib import Path

from clients.python import MsrClient
from tests.compose.composed import COMPOSE, ENV_EXAMPLE, ON_CPU, ROOT


class Stack:
    """What the CPU stack is told, and where it answers.

    Settings come from .env.example; the shell's variables come before them.
    """

    def __init__(self, secrets: Path) -> None:
        self._project = f"msr-test-{os.getpid()}"
        self._environment = os.environ | {
            "SECRETS": str(secrets),
            "MSR_IMAGE": "msr:test",
            "API_PORT": "0",  # a free one
        }

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints on stdout; it must end well."""
        files = [f"--file={file}" for file in (COMPOSE, ON_CPU)]
        ran = subprocess.run(
            ["docker", "compose", f"--env-file={ENV_EXAMPLE}", f"--project-name={self._project}",
             *files, *arguments],
            cwd=ROOT,
            env=self._environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        return ran.stdout.strip()

    def up(self) -> float:
        """Start what does not run; the seconds until all of it is healthy."""
        started = time.monotonic()
        self.compose("up", "--detach", "--wait", "--quiet-pull")
        return time.monotonic() - started

    def client(self) -> MsrClient:
        address = self.compose("port", "api", "8000")
        return MsrClient(f"http://{address}", timeout_seconds=120)

    def inspect(self, service: str, template: str) -> str:
        container = self.compose("ps", "--all", "--quiet", service)
        command = ["docker", "inspect", "--format", template, container]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
