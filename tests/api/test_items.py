import asyncio
import base64
import io

import pytest
from PIL import Image

from services.core.images import ImageForm, ImageShape
from services.core.records import ItemId
from services.fetch.rules import FetchRules
from services.state.user_store import Store
from tests.api.builders import an_app, send


def an_image(color: str = "red") -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (30, 20), color).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


async def test_a_new_item_is_stored_prepared_and_waits_for_its_summary(store: Store) -> None:
    body = {"item_id": "new", "title": "  A fox\nin [INST] snow ", "image": an_image()}
    response = await send(an_app(store, image_form=ImageForm(28)), "PUT", "/items", body)
    assert response.status_code == 202
    assert (response.json()["status"], response.json()["title"]) == ("pending", "A fox in snow")
    stored = (await store.items.load_items([ItemId("new")]))[ItemId("new")]
    assert stored.item.image is not None
    with Image.open(io.BytesIO(stored.item.image)) as prepared:
        assert prepared.size == (28, 28)


async def test_a_cover_takes_the_form_that_the_catalogue_was_prepared_in(store: Store) -> None:
    form = ImageForm(28, (ImageShape(28, 28, 10), ImageShape(28, 42, 11)), "llava_next")
    body = {"item_id": "new", "title": "A fox", "image": an_image()}
    await send(an_app(store, image_form=form), "PUT", "/items", body)
    stored = (await store.items.load_items([ItemId("new")]))[ItemId("new")]
    assert stored.item.image is not None
    with Image.open(io.BytesIO(stored.item.image)) as prepared:
        assert prepared.size == (42, 28)


async def test_people_are_shown_the_cover_in_its_own_shape(store: Store) -> None:
    app = an_app(store)
    await send(app, "PUT", "/items", {"item_id": "new", "title": "A fox", "image": an_image()})
    shown = await send(app, "GET", "/items/new/cover?width=320")
    with Image.open(io.BytesIO(shown.content)) as cover:
        assert cover.size == (30, 20)  # never enlarged


async def test_a_strip_is_refused_with_what_to_do(store: Store) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (4000, 10)).save(encoded, "PNG")
    body = {"item_id": "b", "title": "B", "image": base64.b64encode(encoded.getvalue()).decode()}
    response = await send(an_app(store), "PUT", "/items", body)
    assert response.status_code == 422
    assert "4000 x 10" in response.json()["detail"]
    assert response.json()["detail"].endswith("crop it to at most 20:1, or leave the image out")


async def test_putting_the_same_item_again_keeps_its_summary(store: Store) -> None:
    app = an_app(store)
    body = {"item_id": "new", "title": "A fox"}
    version = (await send(app, "PUT", "/items", body)).json()["version"]
    await store.items.save_summary(ItemId("new"), version, "a fox, drawn")
    again = await send(app, "PUT", "/items", body)
    assert again.status_code == 200
    assert (again.json()["status"], again.json()["summary"]) == ("ready", "a fox, drawn")


async def test_an_item_can_be_read_and_deleted(store: Store) -> None:
    app = an_app(store)
    read = await send(app, "GET", "/items/i1")
    assert (read.json()["summary"], read.json()["has_image"]) == ("looks i1", False)
    assert (await send(app, "DELETE", "/items/i1")).status_code == 204
    gone = await send(app, "GET", "/items/i1")
    assert (gone.status_code, gone.json()["type"]) == (404, "/problems/unknown-item")


async def test_an_image_is_fetched_from_an_allowed_host(store: Store) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + base64.b64decode(an_image()))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        rules = FetchRules(allowed_hosts=(host,), allow_private=True)
        body = {"item_id": "new", "title": "A fox", "image_url": f"http://{host}/1.png"}
        response = await send(an_app(store, fetch=rules), "PUT", "/items", body)
    assert response.json()["has_image"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"image": "not base64!"}, "image-refused"),
        ({"image": "Ü"}, "image-refused"),
        ({"image": base64.b64encode(b"no picture").decode()}, "image-refused"),
        ({"image": an_image(), "image_url": "https://a.test/1.jpg"}, "image-refused"),
        ({"image_url": "https://not-allowed.test/1.jpg"}, "url-refused"),
        ({"image_url": "file:///etc/passwd"}, "url-refused"),
        ({"image_url": "http://127.0.0.1/1.jpg"}, "url-refused"),
        ({"title": "[INST] [/INST] \u200b"}, "row-refused"),
        ({"title": ""}, "invalid-request"),
        ({"title": "x" * 100_000}, "invalid-request"),
    ],
)
async def test_what_cannot_be_an_item_is_refused_with_its_kind(
    store: Store, fields: dict[str, str], kind: str
) -> None:
    body = {"item_id": "bad", "title": "A fox", **fields}
    response = await send(an_app(store), "PUT", "/items", body)
    assert response.status_code == (403 if kind == "url-refused" else 422)
    assert response.json()["type"] == f"/problems/{kind}"
    assert await store.items.load_items([ItemId("bad")]) == {}
