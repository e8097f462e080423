import json
import traceback
from collections.abc import Callable, Iterator

import httpx
import pytest

from clients.python import ClientError, MsrClient, ProblemError, ServerUnreachable, StillUpdating
from services.core import wire


@pytest.fixture
def client(base_url: str) -> Iterator[MsrClient]:
    with MsrClient(base_url) as client:
        yield client


def test_a_ranking_comes_as_a_typed_answer(client: MsrClient) -> None:
    answer = client.recommend("u1", candidates=["i2", "i3", "i1"], k=2, timeout_seconds=5)
    assert isinstance(answer, wire.RecommendResponse)
    assert [item.item_id for item in answer.items] == ["i2", "i3"]
    assert answer.rejected == [wire.RejectedCandidate(item_id="i1", reason="seen")]


def test_a_place_says_what_each_part_contributed(client: MsrClient) -> None:
    [place] = client.recommend("u1", candidates=["i2"], timeout_seconds=5).items
    assert place.parts["margin"] == wire.Part(value=0.0, contribution=0.0)
    assert place.parts["sequential"].contribution is None


def test_interactions_give_the_version_to_wait_for(client: MsrClient) -> None:
    one = wire.InteractionIn(user_id="a/../b ?é", item_id="i1", timestamp_ms=1)
    assert client.interact(one, one).versions == {"a/../b ?é": 1}
    assert client.preference("a/../b ?é").history_version == 1
    client.forget("a/../b ?é")
    with pytest.raises(ProblemError, match="no interactions"):
        client.preference("a/../b ?é")


def test_users_who_are_worth_a_look_come_with_what_they_took(client: MsrClient) -> None:
    [persona] = client.personas().personas
    assert (persona.user_id, persona.name) == ("u1", "The first")
    assert persona.last_taken[0].item_id == "i1"


def test_an_item_is_put_read_and_deleted(client: MsrClient) -> None:
    put = client.put_item("new/one", "A fox")
    assert client.item("new/one") == put
    client.delete_item("new/one")
    with pytest.raises(ProblemError) as caught:
        client.item("new/one")
    assert caught.value.problem.type == "/problems/unknown-item"


def test_an_image_that_is_none_is_a_problem(client: MsrClient) -> None:
    with pytest.raises(ProblemError) as caught:
        client.put_item("new", "A fox", image=b"no picture")
    assert caught.value.problem.type == "/problems/image-refused"


def test_adapters_are_listed_and_chosen(client: MsrClient) -> None:
    assert client.adapters().active == "own"
    assert client.activate_adapter("own").previous is None
    assert client.set_shadow("own", share=0.5).shadow == wire.ShadowView(adapter="own", share=0.5)
    assert client.clear_shadow().shadow is None
    arms = [wire.ArmIn(name=name, adapter="own") for name in ("a", "b")]
    experiment = client.set_experiment("a-or-a", arms).experiment
    assert experiment is not None
    assert client.recommend("u1", k=1).arm in [arm.name for arm in experiment.arms]
    assert client.end_experiment().experiment is None
    with pytest.raises(ProblemError, match="no adapter served before"):
        client.roll_back_adapter()


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with MsrClient("http://127.0.0.1:1") as client, pytest.raises(ServerUnreachable):
        client.version()


def test_an_answer_of_something_else_is_unreachable() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with MsrClient("http://x", transport=page) as client, pytest.raises(ServerUnreachable):
        client.version()


def test_an_api_key_is_sent_with_every_request() -> None:
    shown: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        shown.append(request.headers["Authorization"])
        return httpx.Response(204)

    with MsrClient("http://x", api_key="msr_1_s", transport=httpx.MockTransport(answer)) as client:
        client.forget("u1")
        client.delete_item("i1")
    assert shown == ["Bearer msr_1_s"] * 2


def refusing(request: httpx.Request) -> httpx.Response:
    problem = wire.Problem.model_config["json_schema_extra"]["examples"][0]
    return httpx.Response(401, content=json.dumps({**problem, "status": 401}))


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def not_the_api(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="<html>")


@pytest.mark.parametrize("answer", [refusing, unreachable, not_the_api])
def test_no_error_and_no_repr_shows_the_api_key(
    answer: Callable[[httpx.Request], httpx.Response],
) -> None:
    client = MsrClient("http://x", api_key="msr_1_SECRET", transport=httpx.MockTransport(answer))
    with client, pytest.raises(ClientError) as caught:
        client.version()
    told = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in told + repr(caught.value) + repr(vars(caught.value)) + repr(client)
    assert "SECRET" not in repr(vars(client))


@pytest.mark.parametrize("api_key", ["", "SECRET\n", "SEC RET", "SECRETé", "SECRET\x00"])
def test_what_cannot_be_an_api_key_is_refused_without_showing_it(api_key: str) -> None:
    with pytest.raises(ValueError, match="cannot be an API key") as caught:
        MsrClient("http://x", api_key=api_key)
    assert "SEC" not in "".join(traceback.format_exception(caught.value))


def a_preference_at(versions: list[int]) -> httpx.MockTransport:
    """A server whose worker has come one version further with every request."""

    def answer(request: httpx.Request) -> httpx.Response:
        version = versions.pop(0) if len(versions) > 1 else versions[0]
        body = {**wire.PreferenceResponse.model_config["json_schema_extra"]["examples"][0]}
        return httpx.Response(200, content=json.dumps({**body, "preference_version": version}))

    return httpx.MockTransport(answer)


def test_waiting_ends_when_the_preference_covers_the_version() -> None:
    with MsrClient("http://x", transport=a_preference_at([2, 3, 4, 5])) as client:
        found = client.wait_for_version("u1", 4)
    assert found.preference_version == 4


def test_a_wait_that_runs_out_says_how_far_the_preference_came() -> None:
    client = MsrClient("http://x", transport=a_preference_at([2]))
    with client, pytest.raises(StillUpdating, match="covers 2 of 4"):
        client.wait_for_version("u1", 4, timeout_seconds=0)
