from typing import Any

import pytest

from services.core.records import Item, ItemId
from services.state.user_store import Store
from tests.api.builders import an_app, send


async def find(store: Store, query: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = (await send(an_app(store), "GET", f"/items{query}")).json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_items_are_listed_page_by_page(store: Store) -> None:
    answer = await find(store, "?offset=4&limit=10")
    assert (ids(answer), answer["num_matching"], answer["complete"]) == (["i5", "i6"], 6, True)


@pytest.mark.parametrize("search", ["fox snow", "SNOW  fo", "sno", "x1"])
async def test_items_are_found_by_beginnings_of_words_and_by_id(store: Store, search: str) -> None:
    await store.items.put_item(Item(ItemId("x1"), "A red fox: in (snow)"), summary="red")
    assert ids(await find(store, f"?search={search}")) == ["x1"]


async def test_words_are_not_found_in_their_middle_and_signs_find_nothing(store: Store) -> None:
    assert ids(await find(store, "?search=itle")) == []
    assert ids(await find(store, "?search=%25%26")) == []


async def test_items_that_failed_are_found_with_their_reason(store: Store) -> None:
    await store.items.put_item(Item(ItemId("x1"), "A fox", b"picture"), summary=None)
    await store.items.fail_item(
        ItemId("x1"), Item(ItemId("x1"), "A fox", b"picture").version, "refused"
    )
    answer = await find(store, "?status=failed")
    assert (ids(answer), answer["items"][0]["reason"]) == (["x1"], "refused")
    assert answer["items"][0]["has_image"]
    assert answer["num_by_status"] == {"ready": 6, "failed": 1}


async def test_named_items_come_in_their_order_and_unknown_ones_are_left_out(store: Store) -> None:
    answer = await find(store, "?item_id=i3&item_id=nowhere&item_id=i1")
    assert (ids(answer), answer["num_matching"]) == (["i3", "i1"], 2)
