"""Which adapters serve: the operator's selection, kept in Redis and shared by all API processes.

Each base model has its own field of one hash, so that deployments of several models on one Redis
select independently. A change names the selection it replaces, and is refused if another operator
changed it meanwhile.

    selections = AdapterSelections(store.connection)
    before = await selections.load(model)
    await selections.save(model, before, after)
"""

import json
from dataclasses import asdict, dataclass

from pydantic import ConfigDict, TypeAdapter, ValidationError

from services.core.errors import StateConflict, StateError
from services.state import keys
from services.state.connection import Connection


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter by its name, and by the fingerprint of its weights ("" for the base alone)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    weights: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """An adapter that scores a `share` of the requests after they were answered."""

    adapter: AdapterRef
    share: float


@dataclass(frozen=True, slots=True)
class Arm:
    """A share of the users, in proportion to the weight, and the adapter that scores for them."""

    name: str
    adapter: AdapterRef
    weight: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Arms among which users are divided; the name is the salt of the division."""

    name: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, slots=True)
class AdapterSelection:
    """The adapter that scores; `previous` is the one before, used again after a rollback."""

    active: AdapterRef
    previous: AdapterRef | None = None
    shadow: Shadow | None = None
    experiment: Experiment | None = None

    @property
    def adapters(self) -> list[AdapterRef]:
        """All adapters that must be ready to score."""
        arms = self.experiment.arms if self.experiment else ()
        found = [self.active, *(arm.adapter for arm in arms)]
        return [*found, self.shadow.adapter] if self.shadow else found


_SELECTION = TypeAdapter(AdapterSelection)


class AdapterSelections:
    """The selections of all base models."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def load(self, model: str) -> AdapterSelection | None:
        """The selection for the base model of this fingerprint; None if there was none yet."""
        reply = await self._connection.call("HGET", keys.ADAPTERS, model)
        return None if reply is None else _decode(model, reply)

    async def save(
        self, model: str, before: AdapterSelection | None, after: AdapterSelection
    ) -> None:
        """Replace `before` by `after`; StateConflict if `before` is not current any more."""
        saved = await self._connection.run(
            "replace_field",
            [keys.ADAPTERS],
            [model, "" if before is None else _encode(before), _encode(after)],
        )
        if not saved:
            raise StateConflict("the adapters were changed at the same time; load them again")


def _encode(choice: AdapterSelection) -> str:
    return json.dumps(asdict(choice), sort_keys=True)


def _decode(model: str, value: bytes) -> AdapterSelection:
    try:
        return _SELECTION.validate_json(value)
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise StateError(
            f"Redis holds a choice of adapters for model {model} that cannot be read ({fault}); it "
            f"was written by other code: delete it by HDEL {keys.ADAPTERS} {model}"
        ) from error
