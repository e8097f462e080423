"""What is sent: interactions of many users, some of them late, some twice, in shuffled batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.faults.world import ITEM_IDS
from benchmarks.support.synthetic_catalogue import FIRST_TIMESTAMP_MS
from services.core.records import Interaction, UserId

SHARE_TWICE = 0.2
SHARE_LATE = 0.1
# A user's interactions fall into so many seconds each: a few share one, and only their event ids
# order them.
SECONDS_AN_INTERACTION = 8
# The whole stream lasts so many times as long as one history, which begins anywhere in it: a loss
# would be mended by the user's next interaction, so histories must end at all times.
HISTORIES_LONG = 4
# How far, as shares of the whole stream, late and second deliveries lag behind: past a checkpoint.
LATE_BY = (0.05, 0.5)
TWICE_WITHIN = 0.3


@dataclass(frozen=True, slots=True)
class Deliveries:
    """`batches` hold every one of the `interactions` at least once."""

    interactions: Sequence[Interaction]
    batches: Sequence[Sequence[Interaction]]


def draw_deliveries(
    num_interactions: int, num_users: int, batch_size: int, draw: Random
) -> Deliveries:
    """A user takes an item once at most, so a preference tells which interactions are in it."""
    interactions = [
        interaction
        for number in range(num_users)
        for interaction in _draw_history(
            UserId(f"chaos-{number}"), _share(num_interactions, num_users, number), draw
        )
    ]
    last_ms = max(interaction.timestamp_ms for interaction in interactions)
    length_ms = last_ms - FIRST_TIMESTAMP_MS
    late = set(draw.sample(range(len(interactions)), round(SHARE_LATE * len(interactions))))
    arrivals = []
    for number, interaction in enumerate(interactions):
        lag = draw.uniform(*LATE_BY) if number in late else 0.0
        arrivals.append((interaction.timestamp_ms + lag * length_ms, interaction))
    for at, interaction in draw.sample(arrivals, round(SHARE_TWICE * len(arrivals))):
        arrivals.append((at + draw.uniform(0, TWICE_WITHIN) * length_ms, interaction))
    arrivals.sort(key=lambda arrival: arrival[0])
    stream = [interaction for _, interaction in arrivals]
    batches = [stream[start : start + batch_size] for start in range(0, len(stream), batch_size)]
    for batch in batches:
        draw.shuffle(batch)
    return Deliveries(interactions, batches)


def as_json(batch: Sequence[Interaction]) -> dict[str, Any]:
    """The body of the POST /interactions that delivers a batch."""
    return {
        "interactions": [
            {
                "user_id": each.user_id,
                "item_id": each.item_id,
                "timestamp_ms": each.timestamp_ms,
                "event_id": each.event_id,
            }
            for each in batch
        ]
    }


def _share(total: int, num_parts: int, number: int) -> int:
    return total * (number + 1) // num_parts - total * number // num_parts


def _draw_history(user_id: UserId, length: int, draw: Random) -> list[Interaction]:
    num_seconds = SECONDS_AN_INTERACTION * length
    first = draw.randrange((HISTORIES_LONG - 1) * num_seconds)
    return [
        Interaction(
            user_id,
            item_id,
            FIRST_TIMESTAMP_MS + 1000 * (first + draw.randrange(num_seconds)),
            f"{draw.getrandbits(64):016x}",
        )
        for item_id in draw.sample(ITEM_IDS, length)
    ]
