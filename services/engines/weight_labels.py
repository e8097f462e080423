"""Labels by which a vLLM server says which weights it serves.

`msr serve-model` adds these names to those in `/v1/models`. No prompt uses them. A client on any
machine reads from them which weights answer, under the fingerprints that the local engine computes
from the same folders:

    msr:model:FINGERPRINT            the base model (of a merged checkpoint: the one it came from)
    msr:card:CATALOGUES:NAME         its name, and the only catalogues that it knows (model_card.py)
    msr:merged:FINGERPRINT           the merged checkpoint, if it is one
    msr:adapter:NAME:FINGERPRINT     one for each adapter
    msr:calibration:NAME:SLOPE:INTERCEPT:PRIOR  of each adapter; of a merged checkpoint without NAME
    msr:scores:NAME:EDGES:COUNTS     P(Yes) on validation users (core/drift.py), comma-separated
    msr:definition:FINGERPRINT       the prompts and answers that the adapters were trained under

An adapter that is loaded while the server runs gets the same labels (`adapter_middleware.py`).
"""

from collections.abc import Iterable, Mapping

from services.core.drift import ScoreHistogram
from services.core.fingerprint import fingerprint
from services.core.scoring import Calibration
from services.engines.adapter_manifest import current_definition
from services.engines.contract import EngineIdentity
from services.engines.models.model_card import ModelCard

PREFIX = "msr:"
_MODEL = "msr:model:"
_CARD = "msr:card:"
_MERGED = "msr:merged:"
_ADAPTER = "msr:adapter:"
_CALIBRATION = "msr:calibration:"
_SCORES = "msr:scores:"
_DEFINITION = "msr:definition:"
# In place of a catalogue that the card should name and does not.
_UNKNOWN = "unknown"


def labels(identity: EngineIdentity, adapters: Mapping[str, EngineIdentity]) -> list[str]:
    """The labels of a server that serves these weights; `adapters`: name -> with adapter."""
    names = [f"{_MODEL}{identity.model}", f"{_DEFINITION}{definition_fingerprint()}"]
    card = identity.card
    if card.name:
        known = _UNKNOWN if card.fault else ",".join(card.catalogues)
        names.append(f"{_CARD}{known}:{card.name}")
    if identity.adapter:
        names += [f"{_MERGED}{identity.adapter}", *_score_labels("", identity)]
    for name, adapted in sorted(adapters.items()):
        names += adapter_labels(name, adapted)
    return names


def adapter_labels(name: str, adapted: EngineIdentity) -> list[str]:
    """The labels of the adapter that is served under this name."""
    return [f"{_ADAPTER}{name}:{adapted.adapter}", *_score_labels(name, adapted)]


def definition_fingerprint() -> str:
    """Which prompts and answers this version has."""
    return fingerprint(current_definition())


def _score_labels(name: str, identity: EngineIdentity) -> list[str]:
    # repr gives back the very number when it is read: both engines' P(Yes) agree to the last bit.
    calibration, spread = identity.calibration, identity.validation_scores
    numbers = (calibration.slope, calibration.intercept, calibration.prior)
    names = [f"{_CALIBRATION}{name}:{':'.join(map(repr, numbers))}"]
    if spread is not None:
        edges, counts = (",".join(map(repr, each)) for each in (spread.edges, spread.counts))
        names.append(f"{_SCORES}{name}:{edges}:{counts}")
    return names


class WeightLabels:
    """The labels of one server. What no label says is None.

    `model`, `merged` and `definition` are the fingerprints of the base model, of the merged
    checkpoint, and of the prompts and answers. An adapter is asked for by its name, a merged
    checkpoint by "".
    """

    def __init__(self, names: Iterable[str]) -> None:
        """`names` are all that the server lists."""
        self._labels = frozenset(name for name in names if name.startswith(PREFIX))
        self.model = self._value(_MODEL)
        self.merged = self._value(_MERGED)
        self.definition = self._value(_DEFINITION)

    @property
    def card(self) -> ModelCard | None:
        """The base model's card."""
        text = self._value(_CARD)
        if text is None:
            return None
        known, _, name = text.partition(":")
        if known == _UNKNOWN:
            return ModelCard(name, fault="its model card does not say which catalogue it knows")
        return ModelCard(name, tuple(filter(None, known.split(","))))

    def adapter(self, name: str) -> str | None:
        """The adapter's fingerprint."""
        return self._value(f"{_ADAPTER}{name}:")

    def names_of_adapter(self, digest: str) -> list[str]:
        """Under which names the server serves the adapter of this fingerprint."""
        named = (label.removeprefix(_ADAPTER).rpartition(":")[::2] for label in self._labels)
        return sorted(name for name, found in named if found == digest)

    def calibration(self, name: str) -> Calibration | None:
        """What turns margins into P(Yes). ValueError for a label that cannot be read."""
        text = self._value(f"{_CALIBRATION}{name}:")
        if text is None:
            return None
        try:
            slope, intercept, prior = text.split(":")
            known = None if prior == "None" else float(prior)
            return Calibration(float(slope), float(intercept), known)
        except ValueError as error:
            raise ValueError(f"the calibration {text!r}") from error

    def scores(self, name: str) -> ScoreHistogram | None:
        """P(Yes) on validation users. ValueError for a label that cannot be read."""
        text = self._value(f"{_SCORES}{name}:")
        if text is None:
            return None
        try:
            edges, counts = (filter(None, each.split(",")) for each in text.split(":"))
            return ScoreHistogram(tuple(map(float, edges)), tuple(map(int, counts)))
        except ValueError as error:
            raise ValueError(f"the scores {text!r}") from error

    def about(self, name: str) -> list[str]:
        """All labels but those of other adapters, sorted."""
        own = tuple(f"{kind}{name}:" for kind in (_ADAPTER, _CALIBRATION, _SCORES))
        return sorted(
            label
            for label in self._labels
            if not label.startswith((_ADAPTER, _CALIBRATION, _SCORES)) or label.startswith(own)
        )

    def _value(self, prefix: str) -> str | None:
        found = [label for label in self._labels if label.startswith(prefix)]
        return found[0].removeprefix(prefix) if found else None
