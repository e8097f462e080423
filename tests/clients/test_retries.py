"""What is sent again, how often, and after how long."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from clients.python import (
    BacklogFull,
    ClientError,
    MsrClient,
    ProblemError,
    Retries,
    ServerUnreachable,
    StateUnavailable,
)
from clients.python.retries import Tries
from clients.python.routes import retry_after_seconds
from services.core import wire
from services.core.ids import derive_event_id

AT_ONCE = Retries(first_pause_seconds=0.0)


def a_problem(slug: str, status: int, **headers: str) -> httpx.Response:
    example = wire.Problem.model_config["json_schema_extra"]["examples"][0]
    body = {**example, "type": f"/problems/{slug}", "status": status}
    return httpx.Response(status, json=body, headers=headers)


def an_example(model: type[wire.InteractionsResponse | wire.VersionResponse]) -> httpx.Response:
    return httpx.Response(200, json=model.model_config["json_schema_extra"]["examples"][0])


class Script(httpx.MockTransport):
    """Answers in turn, or raises; what was sent is in `sent`."""

    def __init__(self, *outcomes: httpx.Response | type[httpx.TransportError]) -> None:
        self.sent: list[httpx.Request] = []
        self._outcomes = list(outcomes)
        super().__init__(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, httpx.Response):
            return outcome
        raise outcome("on the way")


def asking(script: Script, retries: Retries = AT_ONCE) -> MsrClient:
    return MsrClient("http://x", transport=script, retries=retries)


@pytest.mark.parametrize(
    "first",
    [
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadError,
        httpx.RemoteProtocolError,
        a_problem("state-unavailable", 503),
        a_problem("rate-limited", 429),
        httpx.Response(502, text="<html>"),
        httpx.Response(504, text="<html>"),
    ],
)
def test_what_failed_on_its_way_or_was_put_off_is_sent_again(
    first: httpx.Response | type[httpx.TransportError],
) -> None:
    script = Script(first, an_example(wire.VersionResponse))
    with asking(script) as client:
        assert client.version().version == "0.1.0"
    assert len(script.sent) == 2


@pytest.mark.parametrize(
    "first",
    [httpx.ReadTimeout, httpx.UnsupportedProtocol, a_problem("failed", 500),
     a_problem("unknown-user", 404)],
)  # fmt: skip
def test_what_would_fare_no_better_is_not_sent_again(
    first: httpx.Response | type[httpx.TransportError],
) -> None:
    script = Script(first)
    with asking(script) as client, pytest.raises(ClientError):
        client.preference("u1")
    assert len(script.sent) == 1


CALLS: dict[str, Callable[[MsrClient], object]] = {
    "recommend": lambda client: client.recommend("u"),
    "interact": lambda client: client.interact(wire.InteractionIn(user_id="u", item_id="i")),
    "preference": lambda client: client.preference("u"),
    "forget": lambda client: client.forget("u"),
    "put_item": lambda client: client.put_item("i", "A fox"),
    "delete_item": lambda client: client.delete_item("i"),
    "set_shadow": lambda client: client.set_shadow("a", share=0.5),
    "activate_adapter": lambda client: client.activate_adapter("a"),
    "roll_back_adapter": lambda client: client.roll_back_adapter(),
}


def test_only_what_cannot_count_twice_is_sent_again() -> None:
    sent = {}
    for name, call in CALLS.items():
        script = Script(*[httpx.ReadError] * 4)
        with asking(script) as client, pytest.raises(ServerUnreachable):
            call(client)
        sent[name] = len(script.sent)
    assert {name for name, times in sent.items() if times == 1} == {
        "activate_adapter", "roll_back_adapter",
    }  # fmt: skip
    assert set(sent.values()) == {1, 4}


def test_the_last_error_is_reported_with_the_number_of_tries() -> None:
    script = Script(httpx.ConnectError, httpx.ConnectError, a_problem("backlog-full", 429))
    thrice = Retries(max_tries=3, first_pause_seconds=0.0)
    with asking(script, thrice) as client, pytest.raises(BacklogFull):
        client.version()
    script = Script(*[httpx.ConnectError] * 3)
    with asking(script, thrice) as client, pytest.raises(ServerUnreachable, match="after 3 tries"):
        client.version()


def test_a_server_that_asks_for_more_time_than_there_is_is_not_asked_again() -> None:
    script = Script(a_problem("state-unavailable", 503, **{"Retry-After": "9"}))
    in_time = Retries(budget_seconds=8.0)
    with asking(script, in_time) as client, pytest.raises(StateUnavailable) as caught:
        client.version()
    assert caught.value.retry_after_seconds == 9.0


# --- interactions --------------------------------------------------------------------------------


def sent_ids(script: Script) -> Iterator[list[str | None]]:
    for request in script.sent:
        batch = wire.InteractionBatch.model_validate_json(request.content)
        yield [each.event_id for each in batch.interactions]


def test_a_repeated_interaction_bears_the_event_id_of_the_first() -> None:
    taken = wire.InteractionIn(user_id="u", item_id="i")
    script = Script(httpx.ReadError, an_example(wire.InteractionsResponse))
    with asking(script) as client:
        client.interact(taken, taken)
    first, second = sent_ids(script)
    assert first == second
    assert len({*first, None}) == 3
    assert taken.event_id is None


def test_two_calls_are_two_interactions_unless_they_bear_a_timestamp() -> None:
    timed = wire.InteractionIn(user_id="u", item_id="i", timestamp_ms=7)
    untimed = wire.InteractionIn(user_id="u", item_id="i")
    named = wire.InteractionIn(user_id="u", item_id="i", event_id="mine")
    script = Script(*[an_example(wire.InteractionsResponse)] * 2)
    with asking(script) as client:
        client.interact(timed, untimed, named)
        client.interact(timed, untimed, named)
    first, second = sent_ids(script)
    assert (first[0], first[2]) == (second[0], second[2]) == (derive_event_id("u", "i", 7), "mine")
    assert first[1] != second[1]


class LosesTheFirstAnswer(httpx.HTTPTransport):
    """Delivers every request, and loses what the first is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.has_lost = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if self.has_lost:
            return response
        self.has_lost = True
        response.close()
        raise httpx.ReadError("cut", request=request)


def test_an_interaction_whose_answer_was_lost_counts_once(base_url: str) -> None:
    taken = [wire.InteractionIn(user_id="lost", item_id=item_id) for item_id in ("i1", "i1", "i2")]
    with MsrClient(base_url, transport=LosesTheFirstAnswer(), retries=AT_ONCE) as client:
        answer = client.interact(*taken)
        again = client.interact(*taken)
    assert (answer.accepted, answer.duplicates, answer.versions) == (0, 3, {"lost": 3})
    assert (again.accepted, again.versions) == (3, {"lost": 6})


# --- how long ------------------------------------------------------------------------------------


def pauses(retries: Retries, **headers: str) -> list[float]:
    """The pauses that are asked for; no time passes in them."""
    tries = Tries(retries)
    put_off = a_problem("state-unavailable", 503, **headers)
    found = []
    while not tries.is_exhausted():
        found.append(tries.increment().pause_seconds(put_off))
    return found


def test_pauses_double_up_to_the_longest_with_chance_in_each() -> None:
    retries = Retries(max_tries=5, first_pause_seconds=1.0, longest_pause_seconds=4.0)
    drawn = [pauses(retries) for _ in range(50)]
    for whole, found in zip([1.0, 2.0, 4.0, 4.0], zip(*drawn, strict=True), strict=True):
        assert whole / 2 <= min(found) < 0.6 * whole
        assert 0.9 * whole < max(found) <= whole


def test_what_the_server_asks_for_is_added_to_the_pause() -> None:
    retries = Retries(max_tries=3, first_pause_seconds=1.0, longest_pause_seconds=1.0)
    for pause in pauses(retries, **{"Retry-After": "8"}):
        assert 8.5 <= pause <= 9.0


def test_no_try_begins_after_the_budget() -> None:
    retries = Retries(max_tries=99, budget_seconds=0.3, first_pause_seconds=0.1,
                      longest_pause_seconds=0.1)  # fmt: skip
    script = Script(*[httpx.ConnectError] * 99)
    began = time.monotonic()
    with asking(script, retries) as client, pytest.raises(ServerUnreachable) as caught:
        client.version()
    assert time.monotonic() - began < 1.0
    assert 3 <= len(script.sent) <= 7
    assert f"after {len(script.sent)} tries" in str(caught.value)


@pytest.mark.parametrize(("value", "seconds"), [("3", 3.0), ("", None), ("soon", None),
                                                ("-1", None), ("٣", None)])  # fmt: skip
def test_retry_after_is_read_in_seconds(value: str, seconds: float | None) -> None:
    header = [(b"Retry-After", value.encode())]
    assert retry_after_seconds(httpx.Response(503, headers=header)) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    def asked(moment: datetime) -> float | None:
        header = {"Retry-After": format_datetime(moment, usegmt=True)}
        return retry_after_seconds(httpx.Response(503, headers=header))

    now = datetime.now(UTC)
    assert asked(now - timedelta(hours=1)) == 0.0
    in_an_hour = asked(now + timedelta(hours=1))
    assert in_an_hour is not None
    assert 3500 < in_an_hour <= 3600


def test_without_retries_a_request_is_sent_once() -> None:
    script = Script(a_problem("rate-limited", 429))
    with asking(script, Retries(max_tries=1)) as client, pytest.raises(ProblemError):
        client.version()
    assert len(script.sent) == 1
