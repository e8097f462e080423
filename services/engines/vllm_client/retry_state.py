"""What one prompt has been through: its failed attempts, its pauses, and when it gives up."""

import asyncio

from services.core.backoff import growing_pause, jittered
from services.core.errors import EngineError, EngineRefused
from services.engines.contract import EngineOptions
from services.engines.vllm_client.server import Server
from services.engines.vllm_client.server_http import AttemptFailed

# A prompt that fails so often while others succeed is at fault; a server that fails so often in a
# row is.
MAX_BROKEN = 3
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0


class RetryState:
    """The attempts of one prompt, or of connecting."""

    def __init__(self, options: EngineOptions) -> None:
        """Starts the clock."""
        # A patient prompt waits for a slot as long as prompts before it are answered.
        now = asyncio.get_running_loop().time()
        self.deadline = None if options.patience_seconds else now + options.timeout_seconds
        self.error: EngineError | None = None
        self.failed: set[str] = set()
        self._options = options
        self._waited_seconds = 0.0
        self._num_pauses = 0
        self._num_broken = 0
        self._answered_before: dict[str, int] = {}

    def note(self, server: Server, failure: AttemptFailed) -> None:
        """EngineRefused if this prompt alone keeps failing."""
        self.error = failure.error
        self.failed.add(server.url)
        if failure.kind == "timeout":
            self._waited_seconds += self._options.timeout_seconds
        if failure.kind != "broken":
            return
        self._num_broken += 1
        before = self._answered_before.setdefault(server.url, server.num_answered)
        if self._num_broken >= MAX_BROKEN and server.num_answered > before:
            raise EngineRefused(
                f"this prompt failed {self._num_broken} times where others were answered: "
                f"{failure.error}"
            ) from failure

    def is_overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def may_wait(self) -> bool:
        """Whether patience is left.

        Only time in which no answer can come counts, not time behind other prompts: during a step
        of hours a server may restart more than once.
        """
        return self._waited_seconds < self._options.patience_seconds

    async def pause(self, server_up: asyncio.Event, *, at_least_seconds: float = 0.0) -> None:
        """Wait until the next attempt, longer each time, or until a server is up."""
        started = asyncio.get_running_loop().time()
        seconds = growing_pause(
            self._num_pauses + 1,
            first_seconds=FIRST_RETRY_SECONDS,
            longest_seconds=LONGEST_RETRY_SECONDS,
        )
        try:
            async with asyncio.timeout(max(at_least_seconds, jittered(seconds))):
                await server_up.wait()
        except TimeoutError:
            self._num_pauses += 1
        self._waited_seconds += asyncio.get_running_loop().time() - started
        self.failed.clear()
