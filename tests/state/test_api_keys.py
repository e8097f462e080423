"""API keys at rest, and their buckets: exact under concurrency, whatever Redis' clock does."""

import asyncio

import pytest

from services.core.api_keys import ApiKey, Scope, issue
from services.core.errors import StateError
from services.state import keys
from services.state.api_keys import ApiKeys
from services.state.user_store import Store

DAY_SECONDS = 24 * 3600


def a_key(*, rate: float = 0.0, burst: int | None = None, now_ms: int = 1000) -> ApiKey:
    return issue("shop", [Scope.READ], now_ms=now_ms, rate_per_second=rate, burst=burst)[0]


async def move_bucket(store: Store, key: ApiKey, *, seconds: float) -> None:
    """Let the bucket have been counted so much later (earlier: time has passed since)."""
    bucket = keys.bucket(key.key_id)
    at_us = float(await store.connection.call("HGET", bucket, "at_us"))
    await store.connection.call("HSET", bucket, "at_us", at_us + seconds * 1e6)


async def test_a_key_is_read_as_it_was_added(store: Store) -> None:
    held = ApiKeys(store.connection)
    key, _ = issue(
        "é 'shop'",
        [Scope.READ, Scope.ADMIN],
        now_ms=1000,
        expires_ms=2000,
        rate_per_second=0.5,
        burst=7,
    )
    await held.add(key)
    assert await held.load(key.key_id) == key
    assert await held.load("0" * 12) is None


async def test_keys_are_listed_oldest_first_until_they_are_revoked(store: Store) -> None:
    held = ApiKeys(store.connection)
    later, earlier = a_key(now_ms=2000), a_key(now_ms=1000)
    for key in (later, earlier):
        await held.add(key)
    assert await held.load_all() == [earlier, later]
    assert (await held.revoke(earlier.key_id), await held.revoke(earlier.key_id)) == (True, False)
    assert await held.load_all() == [later]
    assert await held.load(earlier.key_id) is None


async def test_redis_holds_no_secret(store: Store) -> None:
    key, token = issue("shop", [Scope.READ], now_ms=1000)
    await ApiKeys(store.connection).add(key)
    at_rest = str(await store.connection.call("HGETALL", keys.API_KEYS))
    assert key.digest in at_rest
    assert token.split("_", 2)[2] not in at_rest


@pytest.mark.parametrize(
    "value", ["no json", "{}", '{"scopes": ["root"]}', '{"scopes": [], "x": 1}']
)
async def test_a_key_written_by_other_code_is_named(store: Store, value: str) -> None:
    await store.connection.call("HSET", keys.API_KEYS, "0a1b", value)
    with pytest.raises(StateError, match=r"0a1b.*revoke it"):
        await ApiKeys(store.connection).load("0a1b")


# --- the bucket ----------------------------------------------------------------------------------


async def test_of_many_requests_at_once_exactly_the_burst_is_let_through(
    store: Store, redis_url: str
) -> None:
    other = await Store.open(redis_url)
    key = a_key(rate=0.001, burst=10)
    takers = [ApiKeys(each.connection) for each in (store, other)] * 40
    waits = await asyncio.gather(*(taker.take_tokens(key, 1) for taker in takers))
    await other.close()
    assert sum(wait == 0 for wait in waits) == 10
    assert all(wait > 0 for wait in waits if wait)


async def test_a_refused_request_says_when_it_fits_and_then_it_does(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.01, burst=4)
    assert await held.take_tokens(key, 3) == 0
    wait = await held.take_tokens(key, 3)
    assert 100 < wait <= 200  # two more tokens at one in 100 s
    await move_bucket(store, key, seconds=100 - wait)
    assert await held.take_tokens(key, 3) > 0
    await move_bucket(store, key, seconds=-100)
    assert await held.take_tokens(key, 3) == 0


async def test_a_request_that_costs_more_than_a_full_bucket_leaves_a_debt(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.01, burst=2)
    assert await held.take_tokens(key, 1, num_taken=0) == 0
    assert await held.take_tokens(key, 9, num_taken=1) == 0
    wait = await held.take_tokens(key, 1)
    assert 800 < wait <= 900  # from -8 to 1


async def test_a_refused_request_gets_back_what_it_had_taken(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.001, burst=5)
    assert await held.take_tokens(key, 2) == 0
    assert await held.take_tokens(key, 1) == 0
    wait = await held.take_tokens(key, 3, num_taken=1)  # 2 are left of the 4 it costs
    assert 0 < wait <= 1000
    assert await held.take_tokens(key, 3) == 0


async def test_a_clock_that_stepped_back_locks_nobody_out_and_gives_nothing(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.001, burst=3)
    assert await held.take_tokens(key, 1) == 0
    await move_bucket(store, key, seconds=DAY_SECONDS)
    assert [await held.take_tokens(key, 1) for _ in range(2)] == [0, 0]
    assert 0 < await held.take_tokens(key, 1) <= 1000


async def test_a_clock_that_stepped_forward_fills_the_bucket_and_no_more(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.001, burst=3)
    assert await held.take_tokens(key, 3) == 0
    await move_bucket(store, key, seconds=-365 * DAY_SECONDS)
    waits = [await held.take_tokens(key, 1) for _ in range(4)]
    assert [wait == 0 for wait in waits] == [True, True, True, False]


async def test_a_bucket_is_kept_until_it_is_full_again_and_goes_with_its_key(store: Store) -> None:
    held, key = ApiKeys(store.connection), a_key(rate=0.01, burst=5)
    await held.add(key)
    await held.take_tokens(key, 5)
    lives_ms = await store.connection.call("PTTL", keys.bucket(key.key_id))
    assert 400_000 < lives_ms <= 501_000
    await held.revoke(key.key_id)
    assert await store.connection.call("EXISTS", keys.bucket(key.key_id)) == 0
