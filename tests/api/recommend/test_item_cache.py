from services.api.recommend.item_cache import ItemCache
from services.core.records import Item, ItemId
from services.state.records import ItemRecord
from tests.api.builders import a_record


class Shelf:
    """What a store holds; notes what is read from it."""

    def __init__(self, **images: bytes) -> None:
        self.items = {ItemId(i): Item(ItemId(i), "title", image) for i, image in images.items()}
        self.read: list[str] = []

    async def load(self, item_ids: list[ItemId]) -> dict[ItemId, ItemRecord]:
        self.read += item_ids
        return {each: a_record(self.items[each]) for each in item_ids if each in self.items}

    def version(self, item_id: str) -> str:
        return self.items[ItemId(item_id)].version


async def get(cache: ItemCache, shelf: Shelf, item_id: str) -> Item:
    return (await cache.get({ItemId(item_id): shelf.version(item_id)}))[ItemId(item_id)].item


async def test_an_image_is_read_once_a_version() -> None:
    shelf = Shelf(a=b"first")
    cache = ItemCache(shelf.load, max_bytes=10_000)
    await get(cache, shelf, "a")
    await get(cache, shelf, "a")
    shelf.items[ItemId("a")] = Item(ItemId("a"), "title", b"second")
    assert (await get(cache, shelf, "a")).image == b"second"
    assert shelf.read == ["a", "a"]


async def test_the_least_recently_used_leaves_first() -> None:
    shelf = Shelf(a=b"x" * 3000, b=b"y" * 3000, c=b"z" * 3000)
    cache = ItemCache(shelf.load, max_bytes=8000)
    for item_id in ("a", "b", "a", "c", "a"):
        await get(cache, shelf, item_id)
    assert shelf.read == ["a", "b", "c"]
    await get(cache, shelf, "b")
    assert shelf.read == ["a", "b", "c", "b"]


async def test_an_item_that_changed_after_its_version_was_read_comes_in_the_new_version() -> None:
    shelf = Shelf(a=b"new")
    cache = ItemCache(shelf.load, max_bytes=10_000)
    found = await cache.get({ItemId("a"): "old version"})
    assert found[ItemId("a")].version == shelf.version("a")


async def test_an_item_that_is_gone_is_left_out() -> None:
    cache = ItemCache(Shelf().load, max_bytes=10_000)
    assert await cache.get({ItemId("gone"): "v"}) == {}
