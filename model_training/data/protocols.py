"""The protocols of an evaluation: which item is the target, and against what it is ranked.

    chrono-uniform      target: the user's last item; 20 negatives, every item alike
    chrono-popularity   the same target; 20 negatives, an item as likely as it has takers
    chrono-era          the same target; 20 negatives that are as recent as the target
    paper               target: the last of the user's six most popular items; 20 negatives, every
                        item alike. It is the reference implementation's, kept to compare with what
                        was published: knowing what is popular alone goes far in it
    full                the chrono target; against the whole catalogue but for what the user took
                        before. For the cheap rankers: a multimodal model cannot score so many

A protocol also fixes what a ranker may learn from: whole histories of training users, and of
validation and test users only what lies before the target of its cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from services.core.errors import HistoryTooShort, InputError
from services.core.records import ItemId, UserId
from services.core.splits import Cut, cut_history, split_users, training_popularity

Draw = Literal["uniform", "popularity", "era", "whole catalogue"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a target is held out, how its rivals are drawn, and which cheap rankers may rank them."""

    name: str
    cut: Cut
    draw: Draw

    @property
    def retrieval(self) -> str:
        """The artifact of the cheap rankers that have not seen this protocol's targets."""
        return "retrieval" if self.cut == "last" else f"retrieval-{self.cut}"

    @property
    def ranker(self) -> str:
        """The artifact of the fusion that `msr fit-ranker` fits under this protocol; of the first
        one it serves.
        """
        return "ranker" if self.name == "chrono-uniform" else self.evaluated_ranker

    @property
    def evaluated_ranker(self) -> str:
        """The artifact of the fusion that an evaluation fits, for whatever engine it is of."""
        return f"ranker-{self.name}"

    @property
    def whole_catalogue(self) -> bool:
        """Whether targets are ranked among all items, not among frozen negatives."""
        return self.draw == "whole catalogue"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("chrono-uniform", "last", "uniform"),
        Protocol("chrono-popularity", "last", "popularity"),
        Protocol("chrono-era", "last", "era"),
        Protocol("paper", "popular", "uniform"),
        Protocol("full", "last", "whole catalogue"),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; InputError names the known ones."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def visible_histories(
    by_user: Mapping[UserId, Sequence[ItemId]], cut: Cut
) -> dict[UserId, Sequence[ItemId]]:
    """What a ranker may learn from: of validation and test users nothing at or after the target.

    Such a user with too few interactions for a target gives nothing. With the cut `none` everything
    is visible.
    """
    if cut == "none":
        return dict(by_user)
    split = split_users(list(by_user))
    popularity = training_popularity(by_user)
    visible: dict[UserId, Sequence[ItemId]] = {}
    for user_id, interactions in by_user.items():
        if split[user_id] == "train":
            visible[user_id] = interactions
            continue
        try:
            visible[user_id] = cut_history(interactions, cut, popularity)
        except HistoryTooShort:
            continue
    return visible
