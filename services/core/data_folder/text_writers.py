"""Who wrote texts: a model by the prompts of a version, and the model's name for people.

Summaries and preferences carry their writer all the way: in the manifest of their artifact, in
Redis, in health, in the console and in answers. Texts of another writer are never taken for one's
own.
"""

from dataclasses import dataclass
from typing import Protocol

from services.core.errors import ArtifactMismatch
from services.core.fingerprint import fingerprint
from services.core.prompts import PREFERENCE_FINGERPRINT, SUMMARY_FINGERPRINT, Sampling

REMEDY = (
    "start it with the model that wrote them, write them with this one (`msr summarize-images`, "
    "then `msr build-preferences --cut none`), or add --accept-other-texts: they are served, and "
    "marked as another model's, until they are written anew in the background"
)
UNKNOWN_ORIGIN = (
    "nobody knows who wrote the texts in Redis, because an earlier version published them; run "
    "`msr publish` once, or start `msr serve`"
)
UNKNOWN_NAME = "a model that is not known"


class Model(Protocol):
    """What identifies a model that writes, and its name for people."""

    @property
    def model(self) -> str: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TextWriter:
    """`identity` says which model wrote, and by which prompt; "" if that is not known.

    Only identities are compared. `name` is the model's, for people.
    """

    identity: str = ""
    name: str = ""

    def __eq__(self, other: object) -> bool:
        """Whether texts of one may stand beside texts of the other."""
        return isinstance(other, TextWriter) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __str__(self) -> str:
        """The name and the fingerprint of the model, as messages show them."""
        model = self.identity.rpartition("/")[0] or self.identity
        if not model:
            return self.name or UNKNOWN_NAME
        return f"{self.name} ({model})" if self.name and self.name != model else model


@dataclass(frozen=True, slots=True)
class TextWriters:
    """Who wrote the summaries, and who the preferences; an identity of "" where nobody knows.

    `preferences` is None if there are none yet.
    """

    summaries: TextWriter
    preferences: TextWriter | None

    @classmethod
    def of(cls, model: str, name: str = "", *, sampling: Sampling | None = None) -> "TextWriters":
        """One model that writes both by the prompts of this version; preferences by `sampling`."""
        return cls(summary_writer(model, name), preference_writer(model, name, sampling=sampling))

    @classmethod
    def by(
        cls, summarizer: Model, writer: Model, *, sampling: Sampling | None = None
    ) -> "TextWriters":
        """A model of the summaries and one of the preferences, which may be the same."""
        return cls(
            summary_writer(summarizer.model, summarizer.name),
            preference_writer(
                writer.model, writer.name, sampling=sampling, summaries=summarizer.model
            ),
        )

    def differing(self, found: "TextWriters") -> list[str]:
        """Of what was `found`, the kinds of texts that these writers did not write."""
        others = []
        if found.summaries != self.summaries:
            others.append("summaries")
        if found.preferences not in (None, self.preferences):
            others.append("preferences")
        return others

    def difference(self, found: "TextWriters") -> str:
        """What `differing` found, in words; "" if nothing differs."""
        kinds: dict[str, list[str]] = {}
        for kind in self.differing(found):
            theirs, own = str(getattr(found, kind)), str(getattr(self, kind))
            if theirs == own:
                what = f"by {own}, written by another prompt or sampling, or of other summaries"
            else:
                what = f"by {theirs}, this process writes by {own}"
            kinds.setdefault(what, []).append(kind)
        return ", and ".join(f"{' and '.join(which)} are {what}" for what, which in kinds.items())

    def require(self, found: "TextWriters") -> None:
        """ArtifactMismatch, with what to do, unless these writers wrote what was found."""
        if difference := self.difference(found):
            raise ArtifactMismatch(f"texts of another model: {difference}; {REMEDY}")


def preference_writer(
    model: str, name: str = "", *, sampling: Sampling | None = None, summaries: str = ""
) -> TextWriter:
    """A model that writes preferences by the prompt of this version, greedily or not, and reads
    summaries of the model `summaries` ("": its own).
    """
    how = f"{sampling_label(sampling)}{summaries_label(model, summaries)}"
    return TextWriter(f"{model}/{PREFERENCE_FINGERPRINT}{how}", name)


def summaries_label(model: str, summaries: str) -> str:
    """What summaries of another model add to the identity of a writer of preferences: its texts are
    not the same, and do not continue those that it wrote of other summaries.
    """
    if summaries in ("", model):
        return ""
    return f"+summaries-{fingerprint({'model': summaries})[:8]}"


def sampling_label(sampling: Sampling | None) -> str:
    """What sampling adds to a writer's identity; "" for greedy decoding."""
    return f"+{sampling.label}" if sampling is not None else ""


def summary_writer(model: str, name: str = "") -> TextWriter:
    """A model that writes summaries by the prompt of this version."""
    return TextWriter(f"{model}/{SUMMARY_FINGERPRINT}", name)
