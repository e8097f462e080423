"""The items, interactions and preferences that training reads, opened once and passed on.

`open_inputs` reads the interactions. Everything else is read when a step first uses it. The checks
are here, so that no step can skip them: a preference must not have seen its target item, and the
artifacts must belong together.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from services.core.artifacts import Artifact, Manifest
from services.core.errors import ArtifactMismatch, EmptyDataset, HistoryTooShort, TargetLeak
from services.core.prompts import PREFERENCE_FINGERPRINT
from services.core.records import Item, ItemId, UserId
from services.core.recurrence import BLOCK_SIZE
from services.core.splits import Cut, Split, hold_out, split_users, training_popularity


@dataclass(frozen=True)
class Preferences:
    """The preference of each user, written from the history before the target item."""

    by_user: Mapping[UserId, str]
    manifest: Manifest


@dataclass(frozen=True, eq=False)
class Inputs:
    """The items and interactions of a data folder.

    `histories` holds the whole interactions of every user, oldest first.
    """

    data: str
    items: Manifest
    interactions: Manifest
    histories: Mapping[UserId, Sequence[ItemId]]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of both artifacts, by name."""
        return {"items": self.items.fingerprint, "interactions": self.interactions.fingerprint}

    @cached_property
    def split(self) -> dict[UserId, Split]:
        """Whether a user is for training, validation or testing."""
        return split_users(list(self.histories))

    @cached_property
    def item_ids(self) -> list[ItemId]:
        """All item ids, in the order of the item index."""
        ids: list[ItemId] = Artifact(self.data, "items").read(["item_id"])["item_id"].to_pylist()
        return ids

    @cached_property
    def timestamps_ms(self) -> dict[UserId, list[int]] | None:
        """The time of each interaction in `histories`, in milliseconds.

        None if the data set has an order within each history and no times across users.
        """
        if self.interactions.definition.get("times", "clock") != "clock":
            return None
        table = Artifact(self.data, "interactions").read(["user_id", "timestamps_ms"])
        users, times = table["user_id"].to_pylist(), table["timestamps_ms"].to_pylist()
        return dict(zip(users, times, strict=True))

    def indices(self, item_ids: Sequence[ItemId]) -> list[int]:
        """The item indices of these ids; ArtifactMismatch if the catalogue lacks one."""
        try:
            return [self._index[item_id] for item_id in item_ids]
        except KeyError as error:
            raise ArtifactMismatch(
                f"the interactions name item {error.args[0]!r}, which the catalogue lacks; run "
                "`msr prepare-catalogue` again"
            ) from error

    def hold_out(self, user_id: UserId, cut: Cut) -> tuple[Sequence[ItemId], ItemId]:
        """The user's history and target item; HistoryTooShort if there is no target."""
        return hold_out(self.histories[user_id], cut, self._popularity)

    def read_items(self, wanted: Collection[ItemId]) -> dict[ItemId, Item]:
        """The wanted items with their images; ArtifactMismatch if the catalogue lacks one.

        One shard is in memory at a time, so the catalogue may be larger than memory.
        """
        wanted = set(wanted)
        found: dict[ItemId, Item] = {}
        for shard in Artifact(self.data, "items").shards(["item_id", "title", "image"]):
            keep = [item_id in wanted for item_id in shard["item_id"].to_pylist()]
            for row in shard.filter(pa.array(keep)).to_pylist():
                found[row["item_id"]] = Item(**row)
        if missing := sorted(wanted - found.keys()):
            raise ArtifactMismatch(
                f"the catalogue lacks item {missing[0]!r} ({len(missing)} such items); run "
                "`msr prepare-catalogue` and every step after it again"
            )
        return found

    def read_preferences(self, name: str = "preferences", *, cut: Cut = "last") -> Preferences:
        """The preferences of `name`, checked not to know the target items that `cut` holds out.

        Raises TargetLeak if a preference has seen its user's target, ArtifactMismatch if it was
        written by other prompts or from other interactions than those in the data folder.
        """
        artifact = Artifact(self.data, name)
        manifest = artifact.manifest()
        found = manifest.definition.get("cut")
        if found != cut:
            raise TargetLeak(
                f"{artifact.location} was built with cut {found!r}: its preferences have seen "
                "target items and give the answers away; use those of "
                f"`msr build-preferences --cut {cut}`"
            )
        _require_current_definition(artifact, manifest)
        self.require_same_inputs(manifest)
        by_user: dict[UserId, str] = {}
        for row in artifact.read(["user_id", "item_ids", "preference"]).to_pylist():
            user_id = row["user_id"]
            if user_id not in self.histories:
                raise ArtifactMismatch(
                    f"{artifact.location} has user {user_id!r}, the interactions have not; run "
                    "`msr build-preferences` again"
                )
            if user_id in by_user:
                raise ArtifactMismatch(f"{artifact.location} has user {user_id!r} twice; delete it")
            whole = manifest.definition.get("variant") != "direct"
            self._require_history(user_id, row["item_ids"], cut, whole=whole)
            by_user[user_id] = row["preference"]
        if not by_user:
            raise EmptyDataset(
                f"{artifact.location} has no users; run `msr build-preferences` again"
            )
        return Preferences(by_user, manifest)

    def require_same_inputs(self, manifest: Manifest) -> None:
        """ArtifactMismatch if an input of `manifest` has been made anew since."""
        for name, fingerprint in manifest.inputs.items():
            found = self.fingerprints.get(name) or Artifact(self.data, name).manifest().fingerprint
            if found != fingerprint:
                raise ArtifactMismatch(
                    f"`msr {manifest.step}` ran on {name} {fingerprint}, but {self.data} now holds "
                    f"{name} {found}; run `msr {manifest.step}` again"
                )

    def _require_history(
        self, user_id: UserId, read: Sequence[ItemId], cut: Cut, *, whole: bool
    ) -> None:
        """`read`, what a preference was written from, must be the history before the target.

        A direct preference (not `whole`) may know the end of the history only.
        """
        try:
            history, _ = self.hold_out(user_id, cut)
        except HistoryTooShort as error:
            raise ArtifactMismatch(
                f"user {user_id!r} has a preference but no target item; run "
                f"`msr build-preferences --cut {cut}` again"
            ) from error
        expected = list(history) if whole else list(history[-len(read) :])
        if read and list(read) == expected:
            return
        # Items do not repeat in a history, so an item outside it is the target or a later one.
        if set(read) & set(self.histories[user_id][len(history) :]):
            raise TargetLeak(
                f"the preference of user {user_id!r} was written from interactions that the cut "
                f"{cut!r} hides, the target item or what came after it; run "
                f"`msr build-preferences --cut {cut}` again"
            )
        raise ArtifactMismatch(
            f"the preference of user {user_id!r} was written from {len(read)} items that are not "
            f"the {len(history)} before the target; run `msr build-preferences` again"
        )

    @cached_property
    def _index(self) -> dict[ItemId, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def _popularity(self) -> Mapping[ItemId, int]:
        return training_popularity(self.histories)


def open_inputs(data: str) -> Inputs:
    """Open a data folder.

    Raises EmptyDataset if it has no users, and ArtifactMismatch if a user has two rows: one could
    be split into training and the other into testing.
    """
    artifact = Artifact(data, "interactions")
    manifest = artifact.manifest()
    table = artifact.read(["user_id", "item_ids"])
    users, item_ids = table["user_id"].to_pylist(), table["item_ids"].to_pylist()
    if not users:
        raise EmptyDataset(
            f"{artifact.location} has no users; prepare a catalogue with interactions"
        )
    histories = dict(zip(users, item_ids, strict=True))
    if len(histories) != len(users):
        twice = next(user for user, times in Counter(users).items() if times > 1)
        raise ArtifactMismatch(
            f"{artifact.location} has user {twice!r} twice, and the two rows could be split "
            "differently; run `msr prepare-catalogue` again"
        )
    return Inputs(data, Artifact(data, "items").manifest(), manifest, histories)


def _require_current_definition(artifact: Artifact, manifest: Manifest) -> None:
    expected = {"prompt": PREFERENCE_FINGERPRINT, "block_size": BLOCK_SIZE}
    for name, value in expected.items():
        found = manifest.definition.get(name)
        if found != value:
            raise ArtifactMismatch(
                f"{artifact.location} was built with {name} {found!r}, this version has {value!r}; "
                f"run `msr {manifest.step}` again"
            )
