"""POST /recommend: the items that a user would take next."""

from fastapi import APIRouter

from services.api.dependencies import AppDependencies
from services.api.http.problems import documented
from services.api.route_guard import GuardedRoute, needs
from services.core import wire
from services.core.api_keys import Scope
from services.core.errors import StateError, StateUnavailable

router = APIRouter(tags=["recommendations"], route_class=GuardedRoute)


@router.post(
    "/recommend",
    summary="Rank items for a user",
    responses=documented(StateUnavailable, StateError, body=True),
)
@needs(Scope.READ)
async def recommend(body: wire.RecommendRequest, deps: AppDependencies) -> wire.RecommendResponse:
    """Rank the caller's candidates, or retrieve some, by the deadline.

    Unknown and already seen candidates are listed in `rejected`, the others are ranked. An unknown
    user gets popular items (`cold`). If the model is unavailable or late, the request succeeds: the
    items without a model score keep their cheap rank, `degraded` is true and `reason` says why.
    """
    answer = await deps.cascade.recommend(body)
    deps.outcomes.note(answer)
    return answer
