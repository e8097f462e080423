"""Hard negatives: items that the cheap rankers put near a user's target and the user never took.

Uniform negatives are mostly easy: of the wrong topic, or long out of date. In service the model
scores harder candidates, because the cheap rankers have chosen them. So hard negatives are drawn
from the top of the ranking that the history before the target gives.

The rankers have seen no target of a validation or test user (artifact `retrieval`, cut `last`), and
an item that the user took, target included, is never drawn. The held-out target of another user may
be drawn. Without such targets among the negatives, the model could learn to recognize targets as
the items that are never negative.
"""

from collections.abc import Sequence

from model_training.data.inputs import Inputs
from model_training.data.negative_sampling import user_generator
from services.core.artifacts import Artifact
from services.core.errors import RowRefused
from services.core.records import ItemId, UserId
from services.retrieval.cheap_rankers import ARTIFACT, CheapRankers

# Deep enough that users get different items, and that few of the drawn items are ones which the
# user would take as gladly as the target.
TOP = 100


class HardNegatives:
    """Draws from the cheap rankers of a data folder."""

    def __init__(self, inputs: Inputs, *, seed: int, top: int = TOP) -> None:
        """Negatives come from the first `top` items of a ranking.

        Raises ArtifactMissing without rankers, ArtifactMismatch if they were fitted on other data.
        """
        inputs.require_same_inputs(Artifact(inputs.data, ARTIFACT).manifest())
        self._rankers = CheapRankers.load(inputs.data)
        self._seed = seed
        self._top = top

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the rankers."""
        return self._rankers.fingerprint

    def draw(
        self, user_id: UserId, interactions: Sequence[ItemId], num_negatives: int
    ) -> list[ItemId]:
        """Distinct items of the top that the user's history gives, in random order.

        `interactions` are the user's, oldest first, the last one the target. A user's draw depends
        on the seed, the user id and the ranking alone. Raises RowRefused if the rankers find too
        few items that the user did not take.
        """
        found = self._rankers.retrieve(interactions[:-1], limit=self._top, exclude=interactions)
        if len(found) < num_negatives:
            raise RowRefused(
                f"the cheap rankers find {len(found)} items that user {user_id!r} did not take, "
                f"fewer than {num_negatives} hard negatives"
            )
        drawn = user_generator(user_id, "hard", self._seed).permutation(len(found))[:num_negatives]
        return [found[place].item_id for place in drawn.tolist()]
