"""How negative samples are drawn: uniformly, by popularity, among items of the target's time, or
among items that the cheap rankers put near it (hard negatives).

A draw gives distinct items that the user never took. Each user has a random generator of their own,
which depends on the seed, the purpose and the user id alone.

Uniform negatives are mostly easy: of the wrong topic, or long out of date. In service the model
scores harder candidates, because the cheap rankers have chosen them. So hard negatives are drawn
from the top of the ranking that the history before the target gives.

The rankers have seen no target of a validation or test user (artifact `retrieval`, cut `last`), and
an item that the user took, target included, is never drawn. The held-out target of another user may
be drawn. Without such targets among the negatives, the model could learn to recognize targets as
the items that are never negative.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.core.errors import RowRefused
from services.core.records import ItemId, UserId
from services.retrieval.cheap_rankers import CheapRankers

# Era negatives come from the 5 % of the items not taken that are nearest to the target in era. On
# MicroLens-50k these are some 475, among which era alone has an AUC of 0.51. Per user it is 0.55,
# because nearly all negatives of the newest targets are older. (With 2 %: 0.50 and 0.52; with
# 10 %: 0.53 and 0.58.)
ERA_SHARE = 0.05
# In small catalogues a twentieth is too few to draw different negatives for different users.
MIN_ERA_ITEMS = 100
# How many items of a ranking hard negatives come from. Deep enough that users get different items,
# and that few of the drawn items are ones which the user would take as gladly as the target.
HARD_TOP = 100


@dataclass(frozen=True, slots=True)
class Draw:
    """One user's draw of `num_negatives` item indices outside `taken`, for a purpose."""

    user_id: UserId
    taken: Collection[int]
    num_negatives: int
    purpose: str
    seed: int

    def generator(self) -> np.random.Generator:
        """The user's random numbers for this purpose, from the start."""
        digest = hashlib.sha256(f"{self.seed}:{self.purpose}:{self.user_id}".encode()).digest()
        return np.random.default_rng(list(digest))


def draw_uniform(draw: Draw, num_items: int) -> NDArray[np.int64]:
    """Item indices, each as likely as any other: (num_negatives,).

    Raises RowRefused if the catalogue has too few items that the user did not take.
    """
    taken = set(draw.taken)
    if num_items - len(taken) < draw.num_negatives:
        raise RowRefused(
            f"user {draw.user_id!r} took {len(taken)} of {num_items} items, which leaves fewer "
            f"than {draw.num_negatives} negative samples"
        )
    # Of this many distinct items at most len(taken) are removed, so enough remain, and the others
    # stay in random order.
    drawn = draw.generator().choice(num_items, draw.num_negatives + len(taken), replace=False)
    kept = drawn[[index not in taken for index in drawn.tolist()]]
    return np.asarray(kept[: draw.num_negatives], np.int64)


def draw_weighted(draw: Draw, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Item indices drawn one after the other with probability proportional to `weights`
    (num_items,), 0 or more; in the order drawn: (num_negatives,).

    Raises RowRefused if too few items outside `taken` have a weight above 0.
    """
    possible = weights.astype(np.float64)
    possible[list(draw.taken)] = 0
    if np.count_nonzero(possible) < draw.num_negatives:
        raise RowRefused(
            f"user {draw.user_id!r} leaves {np.count_nonzero(possible)} items that others took, "
            f"fewer than {draw.num_negatives} negative samples"
        )
    # The smallest of exponential variables with these rates come first: the same distribution as
    # drawing without replacement (Efraimidis and Spirakis, 2006).
    clocks = draw.generator().standard_exponential(len(possible))
    with np.errstate(divide="ignore"):
        clocks /= possible
    first = np.argpartition(clocks, draw.num_negatives - 1)[: draw.num_negatives]
    return np.asarray(first[np.argsort(clocks[first])], np.int64)


def draw_near_era(draw: Draw, eras: NDArray[np.float64], era: float) -> NDArray[np.int64]:
    """Item indices, uniform among those nearest to `era`: (num_negatives,).

    `eras` is (num_items,); items with NaN are never drawn. Raises RowRefused if too few items
    outside `taken` have an era.
    """
    distances = np.abs(eras - era)
    distances[list(draw.taken)] = np.nan
    possible = np.flatnonzero(~np.isnan(distances))
    if len(possible) < draw.num_negatives:
        raise RowRefused(
            f"user {draw.user_id!r} leaves {len(possible)} items with an era, fewer than "
            f"{draw.num_negatives} negative samples"
        )
    num_near = min(max(round(ERA_SHARE * len(eras)), MIN_ERA_ITEMS), len(possible))
    rng = draw.generator()
    ties = rng.random(len(possible))  # decides which of equally near items are in
    near = possible[np.lexsort((ties, distances[possible]))[:num_near]]
    return np.asarray(rng.choice(near, draw.num_negatives, replace=False), np.int64)


def draw_hard(
    draw: Draw, rankers: CheapRankers, interactions: Sequence[ItemId], *, top: int = HARD_TOP
) -> list[ItemId]:
    """Items among the first `top` that the user's history gives, in random order.

    `interactions` are the user's, oldest first, the last one the target. Raises RowRefused if the
    rankers find too few items that the user did not take.
    """
    found = rankers.retrieve(interactions[:-1], limit=top, exclude=interactions)
    if len(found) < draw.num_negatives:
        raise RowRefused(
            f"the cheap rankers find {len(found)} items that user {draw.user_id!r} did not take, "
            f"fewer than {draw.num_negatives} hard negatives"
        )
    drawn = draw.generator().permutation(len(found))[: draw.num_negatives]
    return [found[place].item_id for place in drawn.tolist()]
