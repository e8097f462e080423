import io

import pytest
from PIL import Image

from services.api.browse.thumbnails import Covers
from services.api.recommend.item_cache import ItemCache
from services.core.images import ImageForm, blank_image, prepare_cover, prepare_image
from services.core.records import Item, ItemId
from services.state.records import ItemRecord
from services.state.user_store import Store
from tests.api.builders import a_record, an_app, send

ITEM = Item(ItemId("fox"), "A fox", blank_image(336))


def a_poster() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (400, 600), "red").save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
async def store(store: Store) -> Store:
    await store.items.put_item(ITEM, summary="red")
    return store


@pytest.mark.parametrize(("asked", "got"), [(96, 96), (160, 160), (320, 320)])
async def test_a_cover_comes_resized(store: Store, asked: int, got: int) -> None:
    response = await send(an_app(store), "GET", f"/items/fox/cover?width={asked}")
    assert response.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(response.content)).size == (got, got)


async def test_people_see_the_cover_and_not_what_the_model_sees(store: Store) -> None:
    prepared = prepare_cover(a_poster(), ImageForm(336))
    item = Item(ItemId("poster"), "A poster", prepared.image)
    await store.items.put_item(item, summary="red", cover=prepared.shown)
    response = await send(an_app(store), "GET", "/items/poster/cover?width=320")
    shown = Image.open(io.BytesIO(response.content)).convert("RGB")
    assert shown.size == (213, 320)
    assert shown.getpixel((0, 0))[0] > 200  # red, and no border


async def test_an_item_of_an_earlier_version_is_shown_without_its_letterbox(store: Store) -> None:
    item = Item(ItemId("poster"), "A poster", prepare_image(a_poster()))
    await store.items.put_item(item, summary="red")
    response = await send(an_app(store), "GET", "/items/poster/cover?width=320")
    shown = Image.open(io.BytesIO(response.content)).convert("RGB")
    assert shown.size == (213, 320)
    assert shown.getpixel((0, 0))[0] > 200


async def test_a_cover_that_comes_later_is_shown_though_the_version_is_the_same(
    store: Store,
) -> None:
    prepared = prepare_cover(a_poster(), ImageForm(336))
    item = Item(ItemId("poster"), "A poster", prepared.image)
    await store.items.put_item(item, summary="red")  # by an earlier version
    app, path = an_app(store), f"/items/poster/cover?version={item.version}"
    before = await send(app, "GET", path)

    await store.items.put_item(item, summary="red", cover=prepared.shown)

    tag = {"If-None-Match": before.headers["etag"]}
    after = await send(app, "GET", path, headers=tag)
    assert before.headers["cache-control"] == "private, no-cache"
    assert after.status_code == 200
    assert "immutable" in after.headers["cache-control"]


async def test_a_cover_is_kept_for_good_only_by_whoever_names_its_version(store: Store) -> None:
    await store.items.put_item(ITEM, summary="red", cover=a_poster())
    app = an_app(store)
    named = await send(app, "GET", f"/items/fox/cover?version={ITEM.version}")
    other = await send(app, "GET", "/items/fox/cover?version=another")
    assert "immutable" in named.headers["cache-control"]
    assert other.headers["cache-control"] == "private, no-cache"


async def test_a_reader_that_has_it_is_not_sent_it_again(store: Store) -> None:
    app = an_app(store)
    tag = (await send(app, "GET", "/items/fox/cover")).headers["etag"]
    through_a_proxy = {"If-None-Match": f'"other", W/{tag}'}
    again = await send(app, "GET", "/items/fox/cover", headers=through_a_proxy)
    wider = await send(app, "GET", "/items/fox/cover?width=320", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert wider.status_code == 200


async def test_no_cover_and_no_item_are_distinguished(store: Store) -> None:
    app = an_app(store)
    without = await send(app, "GET", "/items/i1/cover")
    unknown = await send(app, "GET", "/items/nowhere/cover")
    assert (without.status_code, without.json()["type"]) == (404, "/problems/no-cover")
    assert unknown.json()["type"] == "/problems/unknown-item"


async def test_a_width_that_is_not_offered_is_refused(store: Store) -> None:
    assert (await send(an_app(store), "GET", "/items/fox/cover?width=1000")).status_code == 422


async def test_resized_covers_take_no_more_memory_than_they_may() -> None:
    items = [Item(ItemId(f"i{k}"), "A fox", blank_image(336)) for k in range(5)]

    async def load(item_ids: list[ItemId]) -> dict[ItemId, ItemRecord]:
        return {item.item_id: a_record(item) for item in items if item.item_id in item_ids}

    async def load_no_cover(item_id: ItemId, version: str) -> None:
        return None

    covers = Covers(load_no_cover, ItemCache(load, 10**9), max_bytes=300, max_at_once=1)
    for item in items:
        assert await covers.get(item.item_id, item.version, 96)
    assert 0 < covers.num_bytes <= 300
