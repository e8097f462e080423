"""An engine whose text is a digest of its prompt: the one thing in a chaos run that is no product.

A prompt holds the previous text and the titles of a block, so a text follows from everything before
it: one interaction that is lost, repeated or out of place changes every later text of its user.
"""

import asyncio
import hashlib
from functools import cache

from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import EngineIdentity


@cache
def _identity() -> EngineIdentity:
    """The demo model's, which the API beside it scores by: it refuses another model's texts."""
    return identify(str(DEMO_WEIGHTS / "base"))


class DigestEngine:
    """Writes 16 hex digits after `seconds`, in which a worker may be killed."""

    num_shortened = 0

    def __init__(self, seconds: float = 0.0) -> None:
        """Without `seconds` a text comes at once."""
        self._seconds = seconds
        self.identity = _identity()

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """The digest of the prompt's text."""
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return hashlib.sha256(messages[-1].text.encode()).hexdigest()[:16]

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """Nothing here is ranked."""
        raise AssertionError("a worker scores nothing")

    async def close(self) -> None:
        """Nothing to give back."""
