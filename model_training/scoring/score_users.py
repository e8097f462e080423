"""Scores the candidates of many users, each by the user's preference."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from services.core.records import Item, ScoredCandidate, UserId
from services.core.scoring import score_candidates
from services.engines.contract import Engine

# Enough prompts in flight to fill an engine's batches, few enough to keep their images in memory.
DEFAULT_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class UserCandidates:
    """One user's candidates and the preference to score them by."""

    user_id: UserId
    preference: str
    candidates: tuple[Item, ...]


async def score_users(
    engine: Engine, users: Iterable[UserCandidates], *, concurrency: int = DEFAULT_CONCURRENCY
) -> AsyncIterator[tuple[UserId, list[ScoredCandidate]]]:
    """Each user's scores in the order of `users`; at most `concurrency` users are in flight.

    The first error of the engine is raised: a missing score is never a default score.
    """
    waiting: list[tuple[UserId, asyncio.Task[list[ScoredCandidate]]]] = []
    try:
        for user in users:
            if len(waiting) == concurrency:
                user_id, task = waiting.pop(0)
                yield user_id, await task
            scoring = score_candidates(
                engine.score, user.preference, user.candidates, engine.identity.calibration
            )
            waiting.append((user.user_id, asyncio.create_task(scoring)))
        while waiting:
            user_id, task = waiting.pop(0)
            yield user_id, await task
    finally:
        for _, task in waiting:
            task.cancel()
