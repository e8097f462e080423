"""Which replica takes a prompt: an item's own, unless it has much more to do than the others."""

from collections import Counter

from services.engines.vllm_client.routing import choose_server

IDLE = {"a": 0, "b": 0, "c": 0}
ITEMS = [f"i{k}:v1" for k in range(300)]


def homes(loads: dict[str, int]) -> dict[str, str]:
    return {item: choose_server(item, loads) for item in ITEMS}


def test_an_item_has_one_home_in_whatever_order_the_replicas_are_named():
    assert homes(IDLE) == homes(dict(reversed(IDLE.items())))


def test_items_are_shared_evenly():
    assert min(Counter(homes(IDLE).values()).values()) > 70


def test_when_a_replica_dies_only_its_own_items_move():
    before, after = homes(IDLE), homes({"a": 0, "b": 0})

    assert {item for item in ITEMS if before[item] != after[item]} == {
        item for item in ITEMS if before[item] == "c"
    }


def test_an_item_that_everybody_asks_for_keeps_no_replica_above_the_bound():
    loads = dict(IDLE)
    for _ in range(120):
        loads[choose_server("popular:v1", loads)] += 1

    assert max(loads.values()) == 50  # 1.25 times the mean
    assert sum(loads.values()) == 120


def test_what_a_full_home_does_not_take_goes_to_the_items_second_choice():
    home = choose_server("i1:v1", IDLE)
    full = IDLE | {home: 10}
    second = choose_server("i1:v1", {name: 0 for name in IDLE if name != home})

    assert choose_server("i1:v1", full) == second


def test_a_prompt_without_an_image_goes_to_the_least_loaded():
    assert choose_server(None, {"a": 3, "b": 1, "c": 2}) == "b"
