"""How negative samples are drawn: uniformly, by popularity, or among items of the target's time.

Every draw is of distinct items that the user never took, and by a generator of the user's own: it
depends on the seed, the purpose and the user id alone.
"""

import hashlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from services.core.errors import RowRefused
from services.core.records import UserId

# Rivals in time: of the items not taken, the 5 % nearest to the target in era. On MicroLens-50k
# they are some 475, among which era alone has an AUC of 0.51; per user 0.55, because the newest
# targets have nearly all of them behind. (With 2 %: 0.50 and 0.52; with 10 %: 0.53 and 0.58.)
ERA_SHARE = 0.05
# In small catalogues a twentieth is too few to draw different negatives for different users.
MIN_ERA_ITEMS = 100


def draw_uniform(
    user_id: UserId,
    taken: Collection[int],
    *,
    num_items: int,
    num_negatives: int,
    purpose: str,
    seed: int,
) -> NDArray[np.int64]:
    """Distinct item indices outside `taken`, each as likely as any other: (num_negatives,).

    Raises RowRefused if the catalogue has too few items that the user did not take.
    """
    taken = set(taken)
    if num_items - len(taken) < num_negatives:
        raise RowRefused(
            f"user {user_id!r} took {len(taken)} of {num_items} items, which leaves fewer than "
            f"{num_negatives} negative samples"
        )
    rng = user_generator(user_id, purpose, seed)
    # Of this many distinct items at most len(taken) fall out, so enough remain; and removing some
    # from a random order leaves the others in random order.
    drawn = rng.choice(num_items, num_negatives + len(taken), replace=False)
    kept = drawn[[index not in taken for index in drawn.tolist()]]
    return np.asarray(kept[:num_negatives], np.int64)


def draw_weighted(
    user_id: UserId,
    taken: Collection[int],
    *,
    weights: NDArray[np.int64],
    num_negatives: int,
    purpose: str,
    seed: int,
) -> NDArray[np.int64]:
    """Distinct item indices outside `taken`, drawn one after the other with probability
    proportional to `weights` (num_items,), 0 or more; in the order drawn: (num_negatives,).

    Raises RowRefused if too few items outside `taken` have a weight above 0.
    """
    possible = weights.astype(np.float64)
    possible[list(taken)] = 0
    if np.count_nonzero(possible) < num_negatives:
        raise RowRefused(
            f"user {user_id!r} leaves {np.count_nonzero(possible)} items that others took, fewer "
            f"than {num_negatives} negative samples"
        )
    # The earliest of exponential clocks that tick at these rates is drawn first: the same
    # distribution as drawing without replacement (Efraimidis and Spirakis, 2006).
    clocks = user_generator(user_id, purpose, seed).standard_exponential(len(possible))
    with np.errstate(divide="ignore"):
        clocks /= possible
    first = np.argpartition(clocks, num_negatives - 1)[:num_negatives]
    return np.asarray(first[np.argsort(clocks[first])], np.int64)


def draw_near_era(
    user_id: UserId,
    taken: Collection[int],
    *,
    eras: NDArray[np.float64],
    era: float,
    num_negatives: int,
    purpose: str,
    seed: int,
) -> NDArray[np.int64]:
    """Distinct item indices outside `taken`, uniform among those nearest to `era`:
    (num_negatives,).

    `eras` is (num_items,), NaN for items without one, which are never drawn. Raises RowRefused if
    too few items outside `taken` have one.
    """
    distances = np.abs(eras - era)
    distances[list(taken)] = np.nan
    possible = np.flatnonzero(~np.isnan(distances))
    if len(possible) < num_negatives:
        raise RowRefused(
            f"user {user_id!r} leaves {len(possible)} items with an era, fewer than "
            f"{num_negatives} negative samples"
        )
    num_near = min(max(round(ERA_SHARE * len(eras)), MIN_ERA_ITEMS), len(possible))
    rng = user_generator(user_id, purpose, seed)
    lots = rng.random(len(possible))  # which of equally near ones are among the nearest
    near = possible[np.lexsort((lots, distances[possible]))[:num_near]]
    drawn = rng.choice(near, num_negatives, replace=False)
    return np.asarray(drawn, np.int64)


def user_generator(user_id: UserId, purpose: str, seed: int) -> np.random.Generator:
    """The user's own random numbers for a purpose, whoever else is drawn for."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{user_id}".encode()).digest()
    return np.random.default_rng(list(digest))
