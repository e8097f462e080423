"""The catalogue, online: put, read and delete items."""

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Path, Response

from services.api.guard import GuardedRoute, needs
from services.api.parts import AppParts, Parts
from services.api.problems import INVALID_REQUEST, documented
from services.core import wire
from services.core.api_keys import Scope
from services.core.errors import (
    ImageRefused,
    RowRefused,
    StateError,
    StateUnavailable,
    UnknownItem,
    UrlRefused,
)
from services.core.images import prepare_image
from services.core.prompts import MAX_TITLE_CHARS, clean_text
from services.core.records import Item, ItemId
from services.fetch.download import fetch_image
from services.state.records import ItemRecord
from services.telemetry import origin

router = APIRouter(tags=["items"], route_class=GuardedRoute)

PathItemId = Annotated[wire.Id, Path(description="The item's id, percent-encoded.")]


@router.put(
    "/items",
    summary="Add or replace an item",
    responses={
        200: {"description": "The item is as it was, and described already."},
        202: {"description": "Stored; its summary is being written.", "model": wire.ItemView},
        **documented(RowRefused, ImageRefused, UrlRefused, StateUnavailable, StateError, body=True),
    },
)
@needs(Scope.ADMIN)
async def put(body: wire.ItemIn, parts: AppParts, response: Response) -> wire.ItemView:
    """Store the item, its picture prepared for the model; the summary follows in the background.

    The item can be ranked at once: scoring needs title and picture only. Putting the same item
    again changes nothing; a failed one is tried again.
    """
    title = clean_text(body.title, MAX_TITLE_CHARS)
    if not title:
        raise RowRefused(
            f"item {body.item_id!r}: nothing is left of the title once model markup and control "
            "characters are removed; give it a title in words"
        )
    item = Item(ItemId(body.item_id), title, await _picture(body, parts))
    status = await parts.store.put_item(item, summary=None, origin=str(origin.current()))
    response.status_code = 202 if status == "pending" else 200
    return _view(await _load(item.item_id, parts))


@router.get(
    "/items/{item_id:id}",
    summary="Read an item",
    responses=documented(UnknownItem, StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def read(item_id: PathItemId, parts: AppParts) -> wire.ItemView:
    """The item as the model sees it, and how far its summary is."""
    return _view(await _load(ItemId(item_id), parts))


@router.delete(
    "/items/{item_id:id}",
    status_code=204,
    summary="Delete an item",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.ADMIN)
async def delete(item_id: PathItemId, parts: AppParts) -> Response:
    """Take the item out of the catalogue; it is not ranked any more. Histories keep its id."""
    await parts.store.delete_item(ItemId(item_id))
    return Response(status_code=204)


async def _picture(body: wire.ItemIn, parts: Parts) -> bytes | None:
    if body.image is not None and body.image_url is not None:
        raise ImageRefused(f"item {body.item_id!r}: give `image` or `image_url`, not both")
    if body.image_url is not None:
        data = await fetch_image(parts.fetch_client, body.image_url, parts.limits.fetch)
    elif body.image is not None:
        try:
            data = base64.b64decode(body.image, validate=True)
        except ValueError as error:
            raise ImageRefused(f"item {body.item_id!r}: `image` is not base64 ({error})") from error
    else:
        return None
    async with parts.image_slots:  # decoding is bounded in memory, and off the event loop
        return await asyncio.to_thread(prepare_image, data, parts.limits.image_size)


async def _load(item_id: ItemId, parts: Parts) -> ItemRecord:
    records = await parts.store.load_items([item_id])
    if item_id not in records:
        raise UnknownItem(f"item {item_id!r} is not in the catalogue; add it with PUT /items")
    return records[item_id]


def _view(record: ItemRecord) -> wire.ItemView:
    return wire.ItemView(
        item_id=record.item.item_id,
        title=record.item.title,
        version=record.version,
        has_image=record.item.image is not None,
        status=record.status,
        summary=record.summary,
        reason=record.reason,
    )
