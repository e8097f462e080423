"""What each evaluation protocol asks, in plain words, and what its numbers can and cannot show."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """Plain sentences; `task` has a field for the number of negatives."""

    label: str
    task: str
    shows: str
    hides: str
    warning: str = ""

    def task_of(self, num_negatives: int) -> str:
        return self.task.format(negatives=num_negatives)


_LAST_IS_TARGET = (
    "Each test user's last interaction is the target and everything before it the history; the "
    "target is ranked "
)

EXPLANATIONS = {
    "chrono-uniform": Explanation(
        "next item against items drawn uniformly",
        _LAST_IS_TARGET
        + "among {negatives:,} items drawn uniformly from those the user never took.",
        "whether a model tells a user's next item from arbitrary ones; the task most papers report",
        "how good the top of a whole catalogue is. Most of the drawn items are rarely taken or out "
        "of date, so knowing what is popular and current already goes far here.",
    ),
    "chrono-popularity": Explanation(
        "next item against popular items",
        _LAST_IS_TARGET
        + "among {negatives:,} items that the user never took, drawn in proportion to "
        "how many users took them.",
        "what a model knows of a user beyond what everybody takes",
        "what popularity is worth in service: the draw turns it against itself, and popularity "
        "alone falls to chance or below.",
    ),
    "chrono-era": Explanation(
        "next item against items of its time",
        _LAST_IS_TARGET
        + "among {negatives:,} items that the user never took and that are as recent "
        "as the target.",
        "whether a model knows the user's taste among what is current; the hardest of the sampled "
        "tasks, and the one that is least helped by knowing what is in season",
        "what knowing the season is worth in service, where it counts.",
    ),
    "paper": Explanation(
        "the protocol of the published method",
        "Of each test user's six items that most training users took, the one taken last is the "
        "target; the history is what came before it, and the target is ranked among {negatives:,} "
        "items that the user never took.",
        "how a model compares with numbers published under the same protocol, where the data was "
        "filtered alike",
        "how well the next item is predicted: the target is popular by construction.",
        "The paper protocol picks popular targets: popularity alone does well under it, and its "
        "numbers are not to be compared with those of the other protocols.",
    ),
    "full": Explanation(
        "next item against the whole catalogue",
        _LAST_IS_TARGET
        + "against every other item that the user had not taken before, {negatives:,} "
        "on average; the pooled AUC is estimated from 100 of them a user, drawn uniformly.",
        "what retrieval faces in service: the target must be found, not told from a sample",
        "how good a list looks to the user: an item that was never offered counts as wrong. The "
        "multimodal model is left out, since it scores a short list and never a whole catalogue.",
    ),
}
