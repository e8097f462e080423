"""What every training step reads, and the checks that come before any work is done on it.

Interactions, items and preferences are read here alone, so that no step can forget to ask whether
a preference has seen its target item, or whether the artifacts still belong together.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from services.core.artifacts import Artifact, Manifest
from services.core.errors import ArtifactMismatch, EmptyDataset, HistoryTooShort, TargetLeak
from services.core.prompts import PREFERENCE_FINGERPRINT
from services.core.records import Item, ItemId, UserId
from services.core.recurrence import BLOCK_SIZE
from services.core.splits import Cut, hold_out, training_popularity


@dataclass(frozen=True)
class Histories:
    """Every user's whole interactions, oldest first, and the artifact they came from."""

    by_user: Mapping[UserId, Sequence[ItemId]]
    fingerprint: str


@dataclass(frozen=True)
class Preferences:
    """The preference of each user, written from the history before the target item."""

    by_user: Mapping[UserId, str]
    manifest: Manifest


def read_histories(data: str) -> Histories:
    """All users' interactions; EmptyDataset if there are none, ArtifactMismatch if a user has two
    rows: one could be split into training, the other into testing.
    """
    artifact = Artifact(data, "interactions")
    fingerprint = artifact.manifest().fingerprint
    table = artifact.read(["user_id", "item_ids"])
    users, histories = table["user_id"].to_pylist(), table["item_ids"].to_pylist()
    if not users:
        raise EmptyDataset(
            f"{artifact.location} has no users; prepare a catalogue with interactions"
        )
    by_user = dict(zip(users, histories, strict=True))
    if len(by_user) != len(users):
        twice = next(user for user, times in Counter(users).items() if times > 1)
        raise ArtifactMismatch(
            f"{artifact.location} has user {twice!r} twice, so that one could be in two parts of "
            "the split; run `msr prepare-catalogue` again"
        )
    return Histories(by_user, fingerprint)


def read_timestamps(data: str) -> dict[UserId, list[int]] | None:
    """When each interaction of `read_histories` took place, in milliseconds.

    None if the data set has an order within each history and no times across users.
    """
    artifact = Artifact(data, "interactions")
    if artifact.manifest().definition.get("times", "clock") != "clock":
        return None
    table = artifact.read(["user_id", "timestamps_ms"])
    users, times = table["user_id"].to_pylist(), table["timestamps_ms"].to_pylist()
    return dict(zip(users, times, strict=True))


def read_item_ids(data: str) -> list[ItemId]:
    """All item ids, in the order of the item index."""
    ids: list[ItemId] = Artifact(data, "items").read(["item_id"])["item_id"].to_pylist()
    return ids


def read_items(data: str, wanted: Collection[ItemId]) -> dict[ItemId, Item]:
    """The wanted items with their pictures; ArtifactMismatch if the catalogue lacks one.

    Shard after shard, so that a catalogue larger than memory can be picked from.
    """
    wanted = set(wanted)
    found: dict[ItemId, Item] = {}
    for shard in Artifact(data, "items").shards(["item_id", "title", "image"]):
        keep = [item_id in wanted for item_id in shard["item_id"].to_pylist()]
        for row in shard.filter(pa.array(keep)).to_pylist():
            found[row["item_id"]] = Item(**row)
    if missing := sorted(wanted - found.keys()):
        raise ArtifactMismatch(
            f"the catalogue lacks item {missing[0]!r} ({len(missing)} such items); run "
            "`msr prepare-catalogue` and every step after it again"
        )
    return found


def read_preferences(
    data: str, histories: Histories, name: str = "preferences", *, cut: Cut = "last"
) -> Preferences:
    """The preferences of `name`, proven not to know the target items that `cut` holds out.

    Raises TargetLeak if a preference has seen its user's target, ArtifactMismatch if it was written
    by other prompts or from other interactions than those in the data folder.
    """
    artifact = Artifact(data, name)
    manifest = artifact.manifest()
    found = manifest.definition.get("cut")
    if found != cut:
        raise TargetLeak(
            f"{artifact.location} was built with cut {found!r}: its preferences have seen target "
            "items and give the answers away; use those of "
            f"`msr build-preferences --cut {cut}`"
        )
    _require_current_definition(artifact, manifest)
    require_same_inputs(data, manifest)
    table = artifact.read(["user_id", "item_ids", "preference"])
    popularity = training_popularity(histories.by_user) if cut == "popular" else {}
    by_user: dict[UserId, str] = {}
    for row in table.to_pylist():
        user_id = row["user_id"]
        if user_id not in histories.by_user:
            raise ArtifactMismatch(
                f"{artifact.location} has user {user_id!r}, the interactions have not; run "
                "`msr build-preferences` again"
            )
        if user_id in by_user:
            raise ArtifactMismatch(f"{artifact.location} has user {user_id!r} twice; delete it")
        interactions = histories.by_user[user_id]
        try:
            history, _ = hold_out(interactions, cut, popularity)
        except HistoryTooShort as error:
            raise ArtifactMismatch(
                f"user {user_id!r} has a preference but no target item; run "
                f"`msr build-preferences --cut {cut}` again"
            ) from error
        whole = manifest.definition.get("variant") != "direct"
        _require_covered(user_id, row["item_ids"], interactions, history, cut, whole=whole)
        by_user[user_id] = row["preference"]
    if not by_user:
        raise EmptyDataset(f"{artifact.location} has no users; run `msr build-preferences` again")
    return Preferences(by_user, manifest)


def require_same_inputs(data: str, manifest: Manifest) -> None:
    """ArtifactMismatch if an artifact that `manifest` was made from has been made anew since."""
    for name, fingerprint in manifest.inputs.items():
        found = Artifact(data, name).manifest().fingerprint
        if found != fingerprint:
            raise ArtifactMismatch(
                f"`msr {manifest.step}` ran on {name} {fingerprint}, but {data} now holds {name} "
                f"{found}; run `msr {manifest.step}` again"
            )


def _require_current_definition(artifact: Artifact, manifest: Manifest) -> None:
    expected = {"prompt": PREFERENCE_FINGERPRINT, "block_size": BLOCK_SIZE}
    for name, value in expected.items():
        found = manifest.definition.get(name)
        if found != value:
            raise ArtifactMismatch(
                f"{artifact.location} was built with {name} {found!r}, this version has {value!r}; "
                f"run `msr {manifest.step}` again"
            )


def _require_covered(
    user_id: UserId,
    covered: Sequence[ItemId],
    interactions: Sequence[ItemId],
    history: Sequence[ItemId],
    cut: Cut,
    *,
    whole: bool,
) -> None:
    """`covered` must be the history before the target; for a direct preference, its end."""
    expected = list(history) if whole else list(history[-len(covered) :])
    if covered and list(covered) == expected:
        return
    # Items do not repeat in a history, so what is covered beyond it is the target or came after.
    if set(covered) & set(interactions[len(history) :]):
        raise TargetLeak(
            f"the preference of user {user_id!r} was written from interactions that the cut "
            f"{cut!r} hides, the target item or what came after it; run "
            f"`msr build-preferences --cut {cut}` again"
        )
    raise ArtifactMismatch(
        f"the preference of user {user_id!r} was written from {len(covered)} items that are not "
        f"the {len(history)} before the target; run `msr build-preferences` again"
    )
