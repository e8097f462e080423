"""The catalogue, online: put, find, read and delete items, and show their covers."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from services.api.browse import thumbnails
from services.api.dependencies import AppDependencies, Dependencies
from services.api.http.etag import is_held
from services.api.http.problems import INVALID_REQUEST, documented
from services.api.route_guard import GuardedRoute, needs
from services.core import wire
from services.core.api_keys import Scope
from services.core.errors import (
    ImageRefused,
    NoCover,
    RowRefused,
    StateError,
    StateUnavailable,
    UnknownItem,
    UrlRefused,
)
from services.core.images import PreparedCover, prepare_cover
from services.core.prompt_phrases import MAX_TITLE_CHARS
from services.core.records import Item, ItemId
from services.core.sanitize_text import clean_text
from services.core.wire import console
from services.fetch.download import fetch_image
from services.state.records import ItemRecord
from services.telemetry import request_context

router = APIRouter(tags=["items"], route_class=GuardedRoute)

PathItemId = Annotated[wire.Id, Path(description="The item's id, percent-encoded.")]


@router.put(
    "/items",
    summary="Add or replace an item",
    responses={
        200: {"description": "Unchanged, and summarized already."},
        202: {"description": "Stored; its summary is being written.", "model": wire.ItemView},
        **documented(RowRefused, ImageRefused, UrlRefused, StateUnavailable, StateError, body=True),
    },
)
@needs(Scope.ADMIN)
async def put(body: wire.ItemIn, deps: AppDependencies, response: Response) -> wire.ItemView:
    """Store the item, its image prepared for the model; the summary follows in the background.

    The item can be ranked at once: scoring needs title and image only. Putting the same item
    again changes nothing; a failed one is tried again.
    """
    title = clean_text(body.title, MAX_TITLE_CHARS)
    if not title:
        raise RowRefused(
            f"item {body.item_id!r}: nothing is left of the title once model markup and control "
            "characters are removed; give it a title in words"
        )
    prepared = await _cover(body, deps)
    item = Item(ItemId(body.item_id), title, None if prepared is None else prepared.image)
    status = await deps.store.items.put_item(
        item,
        summary=None,
        origin=str(request_context.current()),
        cover=None if prepared is None else prepared.shown,
    )
    response.status_code = 202 if status == "pending" else 200
    return _loaded_view(await _load(item.item_id, deps))


@router.get(
    "/items",
    summary="Find items",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def find(
    deps: AppDependencies,
    search: Annotated[
        console.Search,
        Query(description="Beginnings of words of the title, in any order; or of the id."),
    ] = "",
    status: Annotated[wire.ItemStatus | None, Query(description="Only these.")] = None,
    item_id: Annotated[
        list[wire.Id] | None,
        Query(
            min_length=1,
            max_length=console.MAX_LISTED_ITEMS,
            description="These, whatever else is asked; unknown ones are left out.",
        ),
    ] = None,
    offset: Annotated[int, Query(ge=0, le=console.MAX_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=console.MAX_LISTED_ITEMS)] = 50,
) -> console.ItemsResponse:
    """Items by id, page by page. Changes are visible within seconds."""
    if item_id is not None:
        named = await deps.key_scan.load_items([ItemId(each) for each in item_id])
        return _listed(named, len(named), {}, complete=True)
    found = await deps.directory.find_items(search, status=status, offset=offset, limit=limit)
    loaded = await deps.key_scan.load_items(found.item_ids)
    return _listed(loaded, found.num_matching, found.num_by_status, complete=found.complete)


@router.get(
    "/items/{item_id:id}/cover",
    summary="See an item's cover",
    response_class=Response,
    responses={
        200: {
            "description": "The cover as it came, resized.",
            "content": {thumbnails.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "Unchanged: `If-None-Match` contains its tag."},
        **documented(UnknownItem, NoCover, StateUnavailable, StateError, INVALID_REQUEST),
    },
)
@needs(Scope.READ)
async def cover(
    item_id: PathItemId,
    deps: AppDependencies,
    width: Annotated[
        console.CoverWidth, Query(description="At most, in pixels.")
    ] = console.CoverWidth.MEDIUM,
    version: Annotated[
        str | None,
        Query(
            max_length=64,
            description="The item's version. If it is current, the answer may be cached forever.",
        ),
    ] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """An image for people. Without `version` a reader asks each time whether it changed."""
    known = ItemId(item_id)
    current = (await _load(known, deps, images=False)).version
    # Of an item that an earlier version stored, the model's image is shown until its cover comes.
    num_bytes = await deps.store.items.cover_size(known)
    tag = f'"{current}-{width}-{num_bytes}"'
    is_final = version == current and num_bytes > 0
    may_keep = "max-age=31536000, immutable" if is_final else "no-cache"
    headers = {"ETag": tag, "Cache-Control": f"private, {may_keep}"}
    if is_held(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    image = await deps.covers.get(known, current, width, cover_size=num_bytes)
    return Response(image, media_type=thumbnails.MEDIA_TYPE, headers=headers)


@router.get(
    "/items/{item_id:id}",
    summary="Read an item",
    responses=documented(UnknownItem, StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def read(item_id: PathItemId, deps: AppDependencies) -> wire.ItemView:
    """The item as the model sees it, and the state of its summary."""
    return _loaded_view(await _load(ItemId(item_id), deps))


@router.delete(
    "/items/{item_id:id}",
    status_code=204,
    summary="Delete an item",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.ADMIN)
async def delete(item_id: PathItemId, deps: AppDependencies) -> Response:
    """Remove the item from the catalogue; it is not ranked any more. Histories keep its id."""
    await deps.store.items.delete_item(ItemId(item_id))
    return Response(status_code=204)


async def _cover(body: wire.ItemIn, deps: Dependencies) -> PreparedCover | None:
    if body.image is not None and body.image_url is not None:
        raise ImageRefused(f"item {body.item_id!r}: give `image` or `image_url`, not both")
    if body.image_url is not None:
        data = await fetch_image(deps.fetch_client, body.image_url, deps.limits.fetch)
    elif body.image is not None:
        try:
            data = base64.b64decode(body.image, validate=True)
        except ValueError as error:
            raise ImageRefused(f"item {body.item_id!r}: `image` is not base64 ({error})") from error
    else:
        return None
    async with deps.image_slots:  # decoding is bounded in memory, and off the event loop
        return await asyncio.to_thread(prepare_cover, data, deps.limits.image_form)


async def _load(item_id: ItemId, deps: Dependencies, *, images: bool = True) -> ItemRecord:
    records = await deps.store.items.load_items([item_id], images=images)
    if item_id not in records:
        raise UnknownItem(f"item {item_id!r} is not in the catalogue; add it with PUT /items")
    return records[item_id]


def _loaded_view(record: ItemRecord) -> wire.ItemView:
    return _view(record, has_image=record.item.image is not None)


def _view(record: ItemRecord, *, has_image: bool) -> wire.ItemView:
    return wire.ItemView(
        item_id=record.item.item_id,
        title=record.item.title,
        version=record.version,
        has_image=has_image,
        status=record.status,
        summary=record.summary,
        reason=record.reason,
        writer=record.writer,
    )


def _listed(
    loaded: Sequence[tuple[ItemRecord, bool]],
    num_matching: int,
    num_by_status: dict[wire.ItemStatus, int],
    *,
    complete: bool,
) -> console.ItemsResponse:
    return console.ItemsResponse(
        items=[_view(record, has_image=has_image) for record, has_image in loaded],
        num_matching=num_matching,
        num_by_status=num_by_status,
        complete=complete,
    )
