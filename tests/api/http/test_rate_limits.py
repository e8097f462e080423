"""A key has a rate of its own; above it a request is refused, with the time to wait."""

from typing import Any

import httpx
from fastapi import FastAPI

from services.api.http.auth import AccessRules
from services.state import keys
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, a_client, a_token, an_app, bearer, send

READ = ("GET", "/items/i1", None)


def interactions(number: int) -> dict[str, Any]:
    return {
        "interactions": [
            {"user_id": "u1", "item_id": "i1", "timestamp_ms": k} for k in range(number)
        ]
    }


async def ingest(app: FastAPI, token: str, number: int) -> httpx.Response:
    return await send(app, "POST", "/interactions", interactions(number), headers=bearer(token))


async def pass_time(store: Store, token: str, seconds: float) -> None:
    """As if the key's bucket had been counted so much earlier."""
    bucket = keys.bucket(token.split("_")[1])
    at_us = float(await store.connection.call("HGET", bucket, "at_us"))
    await store.connection.call("HSET", bucket, "at_us", at_us - seconds * 1e6)


async def test_past_its_burst_a_key_is_refused_until_its_retry_after(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    token = await a_token(store, rate_per_second=0.01, burst=2)
    answers = [await send(app, *READ, headers=bearer(token)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["type"] == "/problems/rate-limited"
    wait_seconds = int(answers[2].headers["Retry-After"])
    assert 1 < wait_seconds <= 100
    await pass_time(store, token, wait_seconds)
    assert (await send(app, *READ, headers=bearer(token))).status_code == 200


async def test_keys_do_not_use_up_one_anothers_rate(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    one, other = [await a_token(store, rate_per_second=0.01, burst=1) for _ in range(2)]
    used = [await send(app, *READ, headers=bearer(one)) for _ in range(2)]
    assert [answer.status_code for answer in used] == [200, 429]
    assert (await send(app, *READ, headers=bearer(other))).status_code == 200


async def test_a_key_without_a_rate_has_no_limit_and_no_bucket(store: Store) -> None:
    app, token = an_app(store, rules=WITH_KEYS), await a_token(store)
    answers = [await send(app, *READ, headers=bearer(token)) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    bucket = keys.bucket(token.split("_")[1])
    assert await store.connection.call("EXISTS", bucket) == 0


async def test_interactions_cost_one_a_hundred(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    token = await a_token(store, rate_per_second=0.001, burst=5)
    statuses = [(await ingest(app, token, n)).status_code for n in (101, 100, 201, 200, 1)]
    # 2 and 1 of the 5; then 3 are too much, 2 are not.
    assert statuses == [202, 202, 429, 202, 429]


async def test_a_refused_batch_stores_nothing_and_fits_after_its_retry_after(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    token = await a_token(store, rate_per_second=0.01, burst=3)
    await ingest(app, token, 1)
    refused = await ingest(app, token, 300)
    user = await store.load_user("u1")
    assert refused.status_code == 429
    assert user is not None
    assert user.version == 1
    await pass_time(store, token, int(refused.headers["Retry-After"]))
    assert (await ingest(app, token, 300)).json()["accepted"] == 299  # and the one from before


async def test_a_batch_larger_than_the_burst_goes_through_and_is_paid_for_after(
    store: Store,
) -> None:
    app = an_app(store, rules=WITH_KEYS)
    token = await a_token(store, rate_per_second=0.01, burst=2)
    assert (await ingest(app, token, 1000)).status_code == 202
    after = await send(app, *READ, headers=bearer(token))
    assert after.status_code == 429
    assert 800 < int(after.headers["Retry-After"]) <= 900


async def test_a_body_that_cannot_be_read_costs_a_request(store: Store) -> None:
    app = an_app(store, rules=WITH_KEYS)
    token = await a_token(store, rate_per_second=0.01, burst=1)
    headers = {**bearer(token), "Content-Type": "application/json"}
    async with a_client(app) as client:
        broken = await client.post("/interactions", content=b"{", headers=headers)
    assert broken.status_code == 400
    assert (await ingest(app, token, 1)).status_code == 429


async def test_limits_hold_over_all_servers_of_one_redis(store: Store) -> None:
    rules = AccessRules(require_keys=True)
    apps = [an_app(store, rules=rules), an_app(store, rules=rules)]
    token = await a_token(store, rate_per_second=0.01, burst=1)
    statuses = [(await send(app, *READ, headers=bearer(token))).status_code for app in apps]
    assert statuses == [200, 429]
