"""The offline steps: which command makes which artifact, from which other artifacts.

Error messages, `msr doctor`, `msr publish` and the console's progress page read this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One artifact of the data folder."""

    artifact: str
    command: str  # what follows `msr`
    inputs: tuple[str, ...] = ()
    # Whether the console lists it. The others serve comparisons or belong to a listed one.
    listed: bool = False


_DESCRIBED = ("items", "interactions", "summaries")
_SEEN = ("items", "interactions")
_CUTS = {"": "", "-popular": " --cut popular", "-whole": " --cut none"}

# In the order in which the steps run; the artifact's name leads to its step.
STEPS = {
    step.artifact: step
    for step in (
        Step("items", "prepare-catalogue", listed=True),
        Step("interactions", "prepare-catalogue", listed=True),
        Step("summaries", "summarize-images", ("items",), listed=True),
        Step("preferences", "build-preferences", _DESCRIBED, listed=True),
        Step("preferences-whole", "build-preferences --cut none", _DESCRIBED, listed=True),
        Step("preferences-popular", "build-preferences --cut popular", _DESCRIBED),
        *(
            Step(f"preferences-direct{cut}", f"build-preferences --direct{option}", _DESCRIBED)
            for cut, option in _CUTS.items()
        ),
        # The cheap rankers lie in three tables (`retrieval/artifact.py`).
        *(
            Step(
                f"retrieval{cut}{table}",
                f"fit-retrieval{option}",
                _SEEN,
                listed=not table and cut != "-popular",
            )
            for cut, option in _CUTS.items()
            for table in ("", "-terms", "-network")
        ),
        Step("examples", "build-examples", (*_SEEN, "preferences", "retrieval"), listed=True),
        Step("ranker", "fit-ranker", ("retrieval", "preferences"), listed=True),
    )
}

# What `msr publish` takes to Redis: the first of these that is finished.
SERVED_PREFERENCES = ("preferences-whole", "preferences")


def command_for(artifact: str) -> str:
    """The command that makes an artifact, for messages."""
    return STEPS[artifact].command if artifact in STEPS else "its step"


def preferences_name(cut: str, *, direct: bool = False) -> str:
    """The artifact with the preferences of a cut; `direct`: written in one prompt each."""
    kind = "preferences-direct" if direct else "preferences"
    return kind + {"last": "", "popular": "-popular", "none": "-whole"}[cut]
