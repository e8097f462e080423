"""The scope that a route needs: declared once at the route, then checked and documented.

    router = APIRouter(route_class=GuardedRoute)

    @router.post("/recommend")
    @needs(Scope.READ)
    async def recommend(...)

The check comes before the body is read: requests without a valid key are rejected unparsed.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from services.api.dependencies import Dependencies
from services.api.http import problems
from services.api.http.auth import Access, AccessRules
from services.core.api_keys import ApiKey, Scope
from services.core.errors import (
    Forbidden,
    RateLimited,
    StateError,
    StateUnavailable,
    Unauthenticated,
)

SCHEME = "ApiKey"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Exempt = Callable[[AccessRules], bool]


@dataclass(frozen=True, slots=True)
class Need:
    """The scope that a route needs (None: none), and the rules under which it needs none."""

    scope: Scope | None
    unless: Exempt

    def under(self, rules: AccessRules) -> Scope | None:
        """The scope needed under these rules."""
        return self.scope if rules.require_keys and not self.unless(rules) else None


def needs(
    scope: Scope | None, *, unless: Exempt = lambda rules: False
) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope of an endpoint."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.need = Need(scope, unless)  # type: ignore[attr-defined]
        return endpoint

    return declare


# Declares that an endpoint needs no key, whatever the rules.
open_to_all = needs(None)


class GuardedRoute(APIRoute):
    """A route with a declared scope. A route without a declaration fails when it is defined."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, after the check."""
        need = self.need
        handle = super().get_route_handler()

        async def handle_admitted(request: Request) -> Response:
            access = cast(Dependencies, request.app.state.deps).access
            scope = need.under(access.rules)
            if scope is not None:
                await _admit(request, access, scope)
            return await handle(request)

        return handle_admitted

    @property
    def need(self) -> Need:
        """The endpoint's declaration."""
        need = getattr(self.endpoint, "need", None)
        if not isinstance(need, Need):
            raise TypeError(f"{self.path}: say who may call it, by @needs(...) or @open_to_all")
        return need


async def _admit(request: Request, access: Access, scope: Scope) -> None:
    key = await access.identify(request.headers.get("Authorization"))
    request.state.api_key = key
    access.require(key, scope)
    await access.charge(key, 1)


def _caller(request: Request) -> ApiKey | None:
    return cast(ApiKey | None, getattr(request.state, "api_key", None))


# The request's key; None if the route needs none.
Caller = Annotated[ApiKey | None, Depends(_caller)]


def describe(document: dict[str, Any], routes: Iterable[BaseRoute], rules: AccessRules) -> None:
    """Add to an OpenAPI document the scope of each route under these rules."""
    for route in routes:
        if not isinstance(route, GuardedRoute):
            continue
        if (scope := route.need.under(rules)) is None:
            continue
        for method in route.methods:
            operation = document["paths"][route.path_format][method.lower()]
            operation["security"] = [{SCHEME: [scope.value]}]
            problems.add_documented(
                operation["responses"],
                Unauthenticated,
                Forbidden,
                RateLimited,
                StateUnavailable,
                StateError,
            )
    if rules.require_keys:
        document.setdefault("components", {})["securitySchemes"] = {
            SCHEME: {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "msr_ID_SECRET",
                "description": "An API key, as `msr keys create` prints it. Each route names the "
                "scope that it needs.",
            }
        }
