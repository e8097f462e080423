import asyncio

from services.api.browse.search import Directory
from services.core.records import UserId
from services.state.key_scan import KeyScan, ScanResult
from services.state.user_store import Store
from tests.api.builders import an_app, put_user, send


async def put_users(store: Store) -> None:
    for user_id in ("ann", "anton", "bea"):
        await put_user(store, user_id, ["i1", "i2", "i3"], preference=f"taste of {user_id}")


async def test_users_are_found_by_the_beginning_of_their_id_with_their_preference(
    store: Store,
) -> None:
    await put_users(store)
    answer = (await send(an_app(store), "GET", "/users?prefix=an&limit=1")).json()
    assert answer == {
        "users": [
            {
                "user_id": "ann",
                "preference": "taste of ann",
                "history_version": 3,
                "preference_version": 3,
            }
        ],
        "num_matching": 2,
        "num_users": 3,
        "complete": True,
    }


async def test_random_users_are_different_ones_of_those_that_match(store: Store) -> None:
    await put_users(store)
    answer = (await send(an_app(store), "GET", "/users?prefix=an&random=true&limit=5")).json()
    assert [user["user_id"] for user in answer["users"]] == ["ann", "anton"]


async def test_an_empty_system_has_no_users_and_says_so(store: Store) -> None:
    answer = (await send(an_app(store), "GET", "/users")).json()
    assert (answer["users"], answer["num_users"]) == ([], 0)


async def test_a_limit_out_of_bounds_is_refused(store: Store) -> None:
    response = await send(an_app(store), "GET", "/users?limit=101")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "query.limit")


class _CountedKeyScan(KeyScan):
    num_walks = 0

    async def user_ids(self) -> ScanResult[UserId]:
        self.num_walks += 1
        return await super().user_ids()


async def test_many_who_ask_at_once_cost_one_walk(store: Store) -> None:
    key_scan = _CountedKeyScan(store.connection)
    directory = Directory(key_scan)
    await asyncio.gather(*(directory.find_users("", limit=1, at_random=False) for _ in range(9)))
    assert key_scan.num_walks == 1


async def test_a_history_comes_oldest_first_with_titles(store: Store) -> None:
    await put_user(store, "u1", ["i1", "i2", "i3"])
    answer = (await send(an_app(store), "GET", "/users/u1/history?limit=2")).json()
    assert (answer["num_earlier"], answer["history_version"]) == (1, 3)
    assert [(each["item_id"], each["title"]) for each in answer["interactions"]] == [
        ("i2", "title of i2"), ("i3", "title of i3"),
    ]  # fmt: skip


async def test_a_history_keeps_the_id_of_an_item_that_is_gone(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    app = an_app(store)
    await send(app, "DELETE", "/items/i1")
    [entry] = (await send(app, "GET", "/users/u1/history")).json()["interactions"]
    assert (entry["item_id"], entry["title"], entry["has_image"]) == ("i1", None, False)


async def test_the_history_of_an_unknown_user_is_a_problem(store: Store) -> None:
    response = await send(an_app(store), "GET", "/users/stranger/history")
    assert response.json()["type"] == "/problems/unknown-user"
