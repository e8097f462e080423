from collections.abc import Iterator
from typing import Any

import pytest

from services.api.http import problems
from services.api.http.auth import AccessRules
from services.api.main import describe
from services.core import errors
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, an_app

# Errors that only offline steps raise, or that a request never lets out of the process.
NEVER_ANSWERED = {
    errors.MsrError, errors.MalformedFile, errors.EmptyDataset, errors.HistoryTooShort,
    errors.ArtifactError, errors.ArtifactMissing, errors.ArtifactMismatch, errors.TargetLeak,
    errors.FolderNotWritable, errors.EngineRefused, errors.AccessError,
}  # fmt: skip


@pytest.fixture
def document(store: Store) -> dict[str, Any]:
    """Of an application that asks for keys."""
    return an_app(store, rules=WITH_KEYS).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def kinds_listed(operation: dict[str, Any]) -> set[str]:
    return {
        kind
        for response in operation["responses"].values()
        for kind in response.get("content", {}).get(problems.MEDIA_TYPE, {}).get("examples", {})
    }


def test_every_route_of_the_design_is_there(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == {
        "POST /recommend", "POST /interactions", "GET /users", "GET /users/{user_id}/preference",
        "GET /users/{user_id}/preference/events", "GET /users/{user_id}/history", "GET /personas",
        "GET /items", "GET /items/{item_id}/cover", "GET /progress",
        "DELETE /users/{user_id}", "PUT /items", "GET /items/{item_id}",
        "DELETE /items/{item_id}", "GET /health/live", "GET /health/ready", "GET /metrics",
        "GET /version", "GET /adapters", "POST /adapters/{name}/activate",
        "POST /adapters/rollback", "PUT /adapters/shadow", "DELETE /adapters/shadow",
        "PUT /adapters/experiment", "DELETE /adapters/experiment",
    }  # fmt: skip


def test_every_route_lists_its_errors_as_problem_documents(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        kinds = kinds_listed(operation)
        assert "unexpected" in kinds, name
        if "requestBody" in operation:
            assert {"malformed-body", "body-too-large", "unsupported-media-type"} <= kinds, name
        if "requestBody" in operation or operation.get("parameters"):
            assert "invalid-request" in kinds, name
            assert {"state-unavailable", "state-failed"} <= kinds, name


def test_every_error_that_can_be_answered_is_listed_somewhere(document: dict[str, Any]) -> None:
    listed = {kind for _, operation in operations(document) for kind in kinds_listed(operation)}
    answered = set(problems.KINDS) - NEVER_ANSWERED
    assert {problems.KINDS[error].slug for error in answered} <= listed


def test_a_route_that_needs_a_key_says_which_scope_and_how_it_refuses(
    document: dict[str, Any],
) -> None:
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    for name, operation in operations(document):
        refusals = {"unauthenticated", "forbidden", "rate-limited"}
        if "security" in operation:
            assert operation["security"][0]["ApiKey"][0] in ("read", "write", "admin"), name
            assert refusals <= kinds_listed(operation), name
            assert {"WWW-Authenticate"} == set(operation["responses"]["401"]["headers"]), name
            assert {"Retry-After"} == set(operation["responses"]["429"]["headers"]), name
        else:
            assert not refusals & kinds_listed(operation), name


def test_refusals_of_one_status_stand_beside_one_another(document: dict[str, Any]) -> None:
    put = document["paths"]["/items"]["put"]
    ingest = document["paths"]["/interactions"]["post"]
    assert {"url-refused", "forbidden"} <= kinds_listed(put)
    assert {"backlog-full", "rate-limited"} <= kinds_listed(ingest)


def test_where_no_key_is_asked_for_the_document_does_not_speak_of_any(store: Store) -> None:
    document = an_app(store).openapi()
    assert "securitySchemes" not in document["components"]
    assert not [name for name, operation in operations(document) if "security" in operation]
    assert "401" not in str([operation["responses"] for _, operation in operations(document)])


def test_the_document_is_had_without_a_server(store: Store, document: dict[str, Any]) -> None:
    assert describe(WITH_KEYS) == document
    assert describe(AccessRules()) == an_app(store).openapi()


def test_bounds_of_optional_fields_stand_in_the_document(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["RecommendRequest"]["properties"]
    interaction = document["components"]["schemas"]["InteractionIn"]["properties"]
    assert request["num_scored"]["anyOf"][0]["minimum"] == 1
    assert request["timeout_seconds"]["anyOf"][0]["minimum"] == 0.05
    assert request["candidates"]["anyOf"][0]["maxItems"] == 1000
    assert request["k"]["maximum"] == 100
    assert interaction["timestamp_ms"]["anyOf"][0]["maximum"] == 2**53 - 1


def test_every_reference_of_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].rsplit("/", 1)[1] in schemas
            for child in node.values():
                check(child)
        elif isinstance(node, list):
            for child in node:
                check(child)

    check(document)
    assert "HTTPValidationError" not in schemas


def test_every_body_of_the_document_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("RecommendRequest", "RecommendResponse", "InteractionIn", "InteractionBatch",
                 "InteractionsResponse", "PreferenceResponse", "ItemIn", "ItemView", "Problem",
                 "Readiness", "VersionResponse", "AdaptersResponse", "ShadowIn",
                 "ExperimentIn", "UsersResponse", "HistoryResponse", "ItemsResponse",
                 "ProgressResponse", "PersonasResponse"):  # fmt: skip
        assert schemas[name]["examples"], name
