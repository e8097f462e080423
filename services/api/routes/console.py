"""The console at `/`: a page for people. It contains no data, so it needs no key; it calls the
other routes with the key of its user.
"""

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from services.api.browse.console_files import POLICY, ConsoleFile, read_console
from services.api.http.etag import is_held
from services.api.route_guard import GuardedRoute, open_to_all

router = APIRouter(route_class=GuardedRoute, include_in_schema=False)


@router.get("/")
@open_to_all
async def page(request: Request) -> Response:
    """The page; a browser revalidates it each time."""
    return _answer(request, read_console().page, "no-cache")


@router.get("/console/{digest}/{name}")
@open_to_all
async def asset(digest: str, name: str, request: Request) -> Response:
    """A file that the page loads, in the version that the page names."""
    console = read_console()
    if digest != console.digest or name not in console.assets:
        raise HTTPException(404)
    return _answer(request, console.assets[name], "public, max-age=31536000, immutable")


def _answer(request: Request, file: ConsoleFile, may_keep: str) -> Response:
    headers = {
        "ETag": file.tag,
        "Cache-Control": may_keep,
        "Content-Security-Policy": POLICY,
        "Vary": "Accept-Encoding",
    }
    if is_held(request.headers.get("If-None-Match"), file.tag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.zipped, media_type=file.media_type, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)
