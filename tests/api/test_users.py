from services.core.data_folder.text_writers import preference_writer
from services.core.records import UserId
from services.state.user_store import Store
from tests.api.builders import IDENTITY, an_app, put_user, send


async def test_a_preference_comes_with_its_blocks_tail_and_timeline(store: Store) -> None:
    await put_user(store, "u1", ["i1", "i2", "i3", "i4"], preference="foxes")
    answer = (await send(an_app(store), "GET", "/users/u1/preference")).json()
    [block] = answer.pop("timeline")
    assert answer == {
        "user_id": "u1", "preference": "foxes", "history_version": 4, "preference_version": 4,
        "num_blocks": 1, "tail": ["i4"], "by_another_model": False,
        "writer": preference_writer(IDENTITY.model).identity,
    }  # fmt: skip
    assert (block["number"], block["item_ids"]) == (1, ["i1", "i2", "i3"])
    assert block["preference"] == "foxes 1"
    assert block["written_ms"] > 0


async def test_a_user_never_updated_has_an_empty_preference(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    answer = (await send(an_app(store), "GET", "/users/u1/preference")).json()
    assert (answer["preference"], answer["preference_version"], answer["history_version"]) == (
        "", 0, 1,
    )  # fmt: skip


async def test_an_unknown_user_is_a_problem_that_says_so(store: Store) -> None:
    response = await send(an_app(store), "GET", "/users/stranger/preference")
    assert response.status_code == 404
    assert response.json()["type"] == "/problems/unknown-user"
    assert "stranger" in response.json()["detail"]


async def test_a_forgotten_user_is_gone_and_forgetting_twice_is_no_error(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="foxes")
    app = an_app(store)
    statuses = [(await send(app, "DELETE", "/users/u1")).status_code for _ in range(2)]
    assert statuses == [204, 204]
    assert (await send(app, "GET", "/users/u1/preference")).status_code == 404


async def test_an_id_that_ends_like_a_route_is_still_one_id(store: Store) -> None:
    await put_user(store, "a/preference", ["i1"])
    await put_user(store, "a", ["i1"])
    app = an_app(store)
    assert (await send(app, "DELETE", "/users/a/preference")).status_code == 405
    assert (await send(app, "DELETE", "/users/a%2Fpreference")).status_code == 204
    assert (await send(app, "GET", "/users/a/preference")).status_code == 200
    assert await store.load_user(UserId("a/preference")) is None


async def test_ids_with_slashes_spaces_and_other_scripts_can_be_addressed(store: Store) -> None:
    await put_user(store, "a/b c?é", ["i1"], preference="foxes")
    path = "/users/a%2Fb%20c%3F%C3%A9"
    answer = await send(an_app(store), "GET", f"{path}/preference")
    assert answer.json()["user_id"] == "a/b c?é"
    await send(an_app(store), "DELETE", path)
    assert await store.load_user(UserId("a/b c?é")) is None
