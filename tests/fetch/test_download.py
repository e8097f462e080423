import asyncio
import ssl
from typing import Any

import httpcore
import pytest

from services.core.errors import ImageRefused, UrlRefused
from services.fetch.download import (
    MAX_RETRY_AFTER_SECONDS,
    CheckedClient,
    HostUnreachable,
    fetch_image,
)
from services.fetch.rules import FetchRules
from tests.fetch.image_server import AUTHORITY, Answer, ImageServer, an_image

IMAGE = an_image()


def rules_for(server: ImageServer, **changes: object) -> FetchRules:
    defaults = {"allow_private": True, "backoff_seconds": 0.0}
    return FetchRules((server.host,), **(defaults | changes))  # type: ignore[arg-type]


async def fetch(server: ImageServer, path: str, **changes: object) -> bytes:
    rules = rules_for(server, **changes)
    async with CheckedClient(rules) as client:
        return await fetch_image(client, server.url(path), rules)


def redirect(target: str) -> Answer:
    return Answer(status=302, headers={"Location": target})


def resolver(*addresses: str):
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


async def test_an_image_is_fetched_as_it_is():
    with ImageServer({"/1.png": Answer(IMAGE)}) as server:
        assert await fetch(server, "/1.png") == IMAGE


# --- addresses -----------------------------------------------------------------------------------


async def test_a_loopback_address_is_refused_unless_private_ones_are_allowed():
    with (
        ImageServer({"/1.png": Answer(IMAGE)}) as server,
        pytest.raises(UrlRefused, match="not a public address"),
    ):
        await fetch(server, "/1.png", allow_private=False)

    assert not server.requests


async def test_a_name_that_resolves_to_a_private_address_is_refused():
    rules = FetchRules(("covers.example",))
    async with CheckedClient(rules, resolve=resolver("10.0.0.7")) as client:
        with pytest.raises(UrlRefused, match=r"covers\.example leads to 10\.0\.0\.7"):
            await fetch_image(client, "http://covers.example/1.png", rules)


async def test_one_private_address_among_the_dns_answers_refuses_them_all():
    with ImageServer({}) as server:
        rules = FetchRules((f"covers.example:{server.port}",))
        async with CheckedClient(rules, resolve=resolver("8.8.8.8", "127.0.0.1")) as client:
            with pytest.raises(UrlRefused, match=r"127\.0\.0\.1"):
                await fetch_image(client, f"http://covers.example:{server.port}/1.png", rules)

    assert not server.requests


async def test_the_connection_goes_to_the_judged_address_without_a_second_look_up():
    lookups = []

    async def resolve(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    with ImageServer({"/1.png": Answer(IMAGE)}) as server:
        rules = FetchRules((f"covers.example:{server.port}",), allow_private=True)
        async with CheckedClient(rules, resolve=resolve) as client:  # no DNS knows this name
            assert await fetch_image(client, f"http://covers.example:{server.port}/1.png", rules)

    assert lookups == ["covers.example"]


async def test_a_redirect_to_another_allowed_address_is_followed():
    with ImageServer({"/old.png": redirect("/new.png"), "/new.png": Answer(IMAGE)}) as server:
        assert await fetch(server, "/old.png") == IMAGE


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest", "http://localhost/1.png", "file:///etc/passwd"]
)
async def test_a_redirect_to_an_address_outside_the_rules_is_refused(target: str):
    with ImageServer({"/1.png": redirect(target)}) as server, pytest.raises(UrlRefused):
        await fetch(server, "/1.png")


class PublicAddressOnThisMachine(httpcore.AnyIOBackend):
    """Takes 8.8.8.8 for this machine: a test has no public address to serve from."""

    async def connect_tcp(self, host: str, *args: Any) -> httpcore.AsyncNetworkStream:
        assert host == "8.8.8.8"
        return await super().connect_tcp("127.0.0.1", *args)


async def test_a_redirect_to_an_allowed_name_on_a_private_address_is_refused():
    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8"] if host == "outer.example" else ["127.0.0.1"]

    with ImageServer({}) as server:
        outer, inner = f"outer.example:{server.port}", f"inner.example:{server.port}"
        server.answers["/1.png"] = [redirect(f"http://{inner}/2.png")]
        rules, sockets = FetchRules((outer, inner)), PublicAddressOnThisMachine()
        async with CheckedClient(rules, resolve=resolve, sockets=sockets) as client:
            with pytest.raises(UrlRefused, match=r"inner\.example leads to 127\.0\.0\.1"):
                await fetch_image(client, f"http://{outer}/1.png", rules)

    assert server.requests == {"/1.png": 1}


async def test_more_than_three_redirects_are_refused():
    with (
        ImageServer({"/1.png": redirect("/1.png")}) as server,
        pytest.raises(UrlRefused, match="more than 3 redirects"),
    ):
        await fetch(server, "/1.png")

    assert server.requests["/1.png"] == 4


@pytest.mark.parametrize(("name", "trusted"), [("covers.example", True), ("other.example", False)])
async def test_tls_verifies_the_name_of_the_host_not_the_address(name: str, trusted: bool):
    tls = ssl.create_default_context()
    AUTHORITY.configure_trust(tls)
    with ImageServer({"/1.png": Answer(IMAGE)}, tls=True) as server:
        rules = FetchRules((f"{name}:{server.port}",), allow_private=True, max_attempts=1)
        async with CheckedClient(rules, resolve=resolver("127.0.0.1"), tls=tls) as client:
            fetched = fetch_image(client, f"https://{name}:{server.port}/1.png", rules)
            if trusted:
                assert await fetched == IMAGE
            else:
                with pytest.raises(HostUnreachable, match="certificate"):
                    await fetched


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=404), "HTTP 404"),
        (Answer(status=403), "HTTP 403"),
        (Answer(b"<html>", headers={"Content-Type": "text/html"}), "not an image"),
        (Answer(b"?", headers={}), "no type"),
        (
            Answer(IMAGE, headers={"Content-Type": "image/png", "Content-Encoding": "gzip"}),
            "compressed",
        ),
        (Answer(b"x" * 2000), "2000 bytes, more than 1,000"),
    ],
)
async def test_an_answer_that_is_no_image_within_the_limits_is_refused_at_once(
    answer: Answer, reason: str
):
    with ImageServer({"/1.png": answer}) as server, pytest.raises(ImageRefused, match=reason):
        await fetch(server, "/1.png", max_bytes=1000)

    assert server.requests["/1.png"] == 1


async def test_a_body_without_announced_length_is_cut_off_at_the_limit():
    chunked = b"7d0\r\n" + b"x" * 2000 + b"\r\n"  # its end never comes
    headers = {"Content-Type": "image/png", "Transfer-Encoding": "chunked"}
    with (
        ImageServer({"/1.png": Answer(chunked, headers=headers)}) as server,
        pytest.raises(ImageRefused, match="more than 1,000 bytes"),
    ):
        await fetch(server, "/1.png", max_bytes=1000)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_host_that_is_busy_is_asked_again(status: int):
    with ImageServer({"/1.png": [Answer(status=status), Answer(IMAGE)]}) as server:
        assert await fetch(server, "/1.png") == IMAGE


async def test_waits_grow_and_respect_what_the_host_asks_for():
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    busy = Answer(status=429, headers={"Retry-After": "9"})
    with ImageServer({"/1.png": [Answer(status=503)] * 2 + [busy, Answer(IMAGE)]}) as server:
        rules = rules_for(server, backoff_seconds=1.0)
        async with CheckedClient(rules) as client:
            await fetch_image(client, server.url("/1.png"), rules, sleep=sleep)

    assert waits[0] == 0
    assert 0.5 <= waits[1] <= 1.5
    assert 1.0 <= waits[2] <= 3.0
    assert waits[3] == 9


async def test_a_wait_that_a_date_asks_for_is_capped():
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    busy = Answer(status=429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"})
    with ImageServer({"/1.png": [busy, Answer()]}) as server:
        rules = rules_for(server)
        async with CheckedClient(rules) as client:
            await fetch_image(client, server.url("/1.png"), rules, sleep=sleep)

    assert waits == [0, MAX_RETRY_AFTER_SECONDS]


async def test_a_body_that_breaks_off_is_fetched_again():
    cut = Answer(IMAGE[:10], announced_length=len(IMAGE))
    with ImageServer({"/1.png": [cut, Answer(IMAGE)]}) as server:
        assert await fetch(server, "/1.png") == IMAGE


async def test_a_host_that_stays_busy_is_given_up_as_unreachable():
    with (
        ImageServer({"/1.png": Answer(status=503)}) as server,
        pytest.raises(HostUnreachable, match=r"4 attempts \(HTTP 503\)"),
    ):
        await fetch(server, "/1.png")

    assert server.requests["/1.png"] == 4


async def test_a_host_that_stalls_is_left_after_the_time_limit():
    with (
        ImageServer({"/1.png": Answer(IMAGE, stalls=True)}) as server,
        pytest.raises(HostUnreachable, match=r"no answer within 0\.05 s"),
    ):
        await fetch(server, "/1.png", timeout_seconds=0.05, max_attempts=2)


async def test_a_name_that_does_not_resolve_is_unreachable():
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    rules = FetchRules(("covers.example",), backoff_seconds=0.0)
    async with CheckedClient(rules, resolve=resolve) as client:
        with pytest.raises(HostUnreachable, match="cannot be resolved"):
            await fetch_image(client, "https://covers.example/1.png", rules)


async def test_no_more_requests_than_allowed_are_in_flight_to_one_host():
    paths = [f"/{k}.png" for k in range(20)]
    with ImageServer({path: Answer(IMAGE) for path in paths}) as server:
        rules = rules_for(server, max_per_host=3)
        async with CheckedClient(rules) as client:
            await asyncio.gather(*(fetch_image(client, server.url(p), rules) for p in paths))

    assert server.requests.total() == 20
    assert server.most_at_once <= 3
