"""Selects users of the demo world to show first: their taste changes visibly, in palette and
drawing style, and they differ from one another.
"""

from collections import Counter
from collections.abc import Iterator

from model_training.demo.attributes import Attributes
from model_training.demo.world import DemoUser, DemoWorld
from services.core.data_folder.personas import Persona
from services.core.recurrence import BLOCK_SIZE

NUM_PERSONAS = 6
_LOOKS = {
    "flat": "flat {} shapes",
    "outline": "{} outlines",
    "striped": "{} stripes",
    "dotted": "{} dots",
}


def demo_personas(world: DemoWorld, num: int = NUM_PERSONAS) -> list[Persona]:
    """The personas of a world; the same world gives the same ones.

    Each is the user with the most visible change and the least in common with those before, of
    equals the first. The first user of all is left out, because the demo walk changes that history.
    """
    left = list(world.users[1:])
    common: Counter[tuple[str, str]] = Counter()
    chosen: list[DemoUser] = []
    while left and len(chosen) < num:
        best = min(
            left,
            key=lambda user: (
                -_num_moved(user),
                user.drifts_at < BLOCK_SIZE,  # before the first preference
                sum(common[each] for each in _shown(user)),
            ),
        )
        left.remove(best)
        common.update(_shown(best))
        chosen.append(best)
    return [_persona(user) for user in chosen]


def look(taste: Attributes) -> str:
    """The look of the items that a user of this taste takes."""
    return _LOOKS[taste.style].format(taste.palette)


def _num_moved(user: DemoUser) -> int:
    first, last = user.first_taste, user.last_taste
    return (first.palette != last.palette) + (first.style != last.style)


def _shown(user: DemoUser) -> Iterator[tuple[str, str]]:
    for when, taste in (("first", user.first_taste), ("last", user.last_taste)):
        yield when, taste.palette
        yield when, taste.style


def _persona(user: DemoUser) -> Persona:
    first, last = look(user.first_taste), look(user.last_taste)
    num_after = len(user.choices) - user.drifts_at
    return Persona(
        user_id=user.user_id,
        name=f"From {first} to {last}",
        about=f"The first {user.drifts_at} interactions are mostly {first}, the next {num_after} "
        f"mostly {last}.",
    )
