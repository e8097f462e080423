from services.core.records import Interaction, Item, ItemId, UserId
from services.state.key_scan import KeyScan, ListedItem
from services.state.user_store import Store

USERS = [UserId(name) for name in ("a:1", "b", "ü")]


async def put(store: Store) -> None:
    await store.items.put_item(Item(ItemId("i2"), "A fox", b"picture"), summary="red")
    await store.items.put_item(Item(ItemId("i1"), "An owl"), summary=None)
    await store.ingest([Interaction(user, ItemId("i1"), 1, f"of {user}") for user in USERS])


async def test_every_user_is_listed_once_by_id_whatever_is_in_it(store: Store) -> None:
    await put(store)
    found = await KeyScan(store.connection, keys_a_step=1).user_ids()
    assert (found.entries, found.complete) == (USERS, True)


async def test_items_are_listed_by_id_with_title_and_status(store: Store) -> None:
    await put(store)
    found = await KeyScan(store.connection).items()
    assert found.entries == [
        ListedItem(ItemId("i1"), "An owl", "pending"),
        ListedItem(ItemId("i2"), "A fox", "ready"),
    ]


async def test_a_walk_ends_after_its_steps_and_says_that_it_saw_not_all(store: Store) -> None:
    await put(store)
    found = await KeyScan(store.connection, keys_a_step=1, max_steps=1).user_ids()
    assert not found.complete


async def test_an_empty_store_is_listed_whole(store: Store) -> None:
    found = await KeyScan(store.connection).items()
    assert (found.entries, found.complete) == ([], True)


async def test_items_come_in_the_order_asked_without_their_images(store: Store) -> None:
    await put(store)
    asked = [ItemId(each) for each in ("i2", "nowhere", "i1", "i2")]
    loaded = await KeyScan(store.connection).load_items(asked)
    told = [(record.item.item_id, record.item.image, has_image) for record, has_image in loaded]
    assert told == [("i2", None, True), ("i1", None, False)]
