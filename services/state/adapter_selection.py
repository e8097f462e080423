"""Which adapters serve: the operator's choice, shared by every API process and kept by Redis.

One field of one hash for each base model, so that deployments of several models on one Redis choose
for themselves, and an adapter chosen for one base never meets another. A change names what it was
made from, and is refused if somebody else was faster.

    choices = AdapterSelections(store.connection)
    before = await choices.load(model)
    await choices.save(model, before, after)
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from services.core.errors import StateConflict, StateError
from services.state import keys
from services.state.connection import Connection, Script


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter by its name, and by the fingerprint of its weights ("" for the base alone)."""

    name: str
    weights: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """An adapter that scores a `share` of the requests after they were answered."""

    adapter: AdapterRef
    share: float


@dataclass(frozen=True, slots=True)
class Arm:
    """A part of the users, as large as its weight among the arms', and who scores for them."""

    name: str
    adapter: AdapterRef
    weight: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms among which users are divided; the name salts the division."""

    name: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class AdapterSelection:
    """Who scores; `previous` is who did before, and would again after a rollback."""

    active: AdapterRef
    previous: AdapterRef | None = None
    shadow: Shadow | None = None
    experiment: Experiment | None = None

    @property
    def adapters(self) -> list[AdapterRef]:
        """All that must be ready to score."""
        arms = self.experiment.arms if self.experiment else ()
        found = [self.active, *(arm.adapter for arm in arms)]
        return [*found, self.shadow.adapter] if self.shadow else found


class AdapterSelections:
    """The choices of all base models."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection
        self._replace_field = Script.read("replace_field")

    async def load(self, model: str) -> AdapterSelection | None:
        """What was last chosen for the base model of this fingerprint; None if nothing ever was."""
        reply = await self._connection.call("HGET", keys.ADAPTERS, model)
        return None if reply is None else _decode(model, reply)

    async def save(
        self, model: str, before: AdapterSelection | None, after: AdapterSelection
    ) -> None:
        """Choose; StateConflict if what is chosen is not `before` any more."""
        saved = await self._connection.run(
            self._replace_field,
            [keys.ADAPTERS],
            [model, "" if before is None else _encode(before), _encode(after)],
        )
        if not saved:
            raise StateConflict("somebody else changed the adapters in this moment; look again")


def _encode(choice: AdapterSelection) -> str:
    return json.dumps(asdict(choice), sort_keys=True)


def _decode(model: str, value: bytes) -> AdapterSelection:
    try:
        fields: dict[str, Any] = json.loads(value)
        previous, shadow, experiment = (
            fields[name] for name in ("previous", "shadow", "experiment")
        )
        return AdapterSelection(
            active=AdapterRef(**fields["active"]),
            previous=previous and AdapterRef(**previous),
            shadow=shadow and Shadow(AdapterRef(**shadow["adapter"]), shadow["share"]),
            experiment=experiment
            and Experiment(
                experiment["name"],
                tuple(
                    Arm(arm["name"], AdapterRef(**arm["adapter"]), arm["weight"])
                    for arm in experiment["arms"]
                ),
            ),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"Redis holds a choice of adapters for model {model} that cannot be read ({error}); it "
            f"was written by other code: delete it by HDEL {keys.ADAPTERS} {model}"
        ) from error
