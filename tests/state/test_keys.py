"""Where keys lie."""

import re

from services.core.records import ItemId, UserId
from services.state import keys


def hash_tag(key: str) -> str:
    """What Redis Cluster chooses the slot by: the first braces that hold something."""
    found = re.search(r"\{(.+?)\}", key)
    assert found is not None
    return found[1]


def test_all_keys_of_a_user_lie_in_one_slot_whatever_the_id_holds():
    user = UserId("{other}user")
    partition = keys.partition_of(user)
    own = [keys.user, keys.history, keys.preference, keys.scores, keys.lease]
    names = [name(user) for name in own] + [keys.events(partition), keys.dead_letters(partition)]

    assert {hash_tag(name) for name in names} == {f"p{partition:02d}"}
    assert len(set(names)) == len(names)


def test_the_buckets_of_api_keys_are_spread_over_the_slots():
    assert hash_tag(keys.bucket("0a1b")) == "k0a1b"
    assert hash_tag(keys.bucket("0a1b")) != hash_tag(keys.bucket("0a1c"))


def test_an_item_lies_in_the_slot_of_its_queue():
    item = ItemId("{other}item")

    assert hash_tag(keys.item(item)) == hash_tag(keys.item_queue(keys.partition_of(item)))


def test_partitions_are_those_of_every_other_process_and_all_are_used():
    assert [keys.partition_of(user) for user in ("u1", "u2", "é")] == [54, 12, 62]
    assert {keys.partition_of(f"u{k}") for k in range(2000)} == set(range(keys.NUM_PARTITIONS))
