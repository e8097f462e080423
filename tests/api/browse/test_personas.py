from pathlib import Path

from services.core.data_folder.personas import Persona, write_personas
from services.state.user_store import Store
from tests.api.builders import an_app, put_user, send

ANN = Persona(user_id="ann", name="From foxes to owls", about="Begins with foxes.")


async def test_a_persona_comes_with_what_was_taken_last(store: Store, tmp_path: Path) -> None:
    await put_user(store, "ann", ["i1", "i2", "i3", "i4", "i5"])
    write_personas(str(tmp_path), [ANN])
    [shown] = (await send(an_app(store, data=str(tmp_path)), "GET", "/personas")).json()["personas"]
    assert [each["title"] for each in shown.pop("last_taken")] == [
        f"title of i{k}" for k in (2, 3, 4, 5)
    ]
    assert shown == ANN.model_dump()


async def test_who_is_not_known_any_more_is_left_out(store: Store, tmp_path: Path) -> None:
    for user_id in ("ann", "bea"):
        await put_user(store, user_id, ["i1"])
    write_personas(str(tmp_path), [ANN, ANN.model_copy(update={"user_id": "bea"})])
    app = an_app(store, data=str(tmp_path))
    await send(app, "DELETE", "/users/ann")
    listed = (await send(app, "GET", "/personas")).json()["personas"]
    assert [persona["user_id"] for persona in listed] == ["bea"]


async def test_there_are_none_without_a_file_or_a_data_folder(store: Store, tmp_path: Path) -> None:
    for data in (None, str(tmp_path)):
        response = await send(an_app(store, data=data), "GET", "/personas")
        assert (response.status_code, response.json()) == (200, {"personas": []})


async def test_a_damaged_file_is_a_problem_that_names_it_and_not_where_it_lies(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "personas.json").write_text("[")
    response = await send(an_app(store, data=str(tmp_path)), "GET", "/personas")
    assert (response.status_code, response.json()["type"]) == (503, "/problems/personas-unreadable")
    assert "personas.json" in response.json()["detail"]
    assert "delete it" in response.json()["detail"]
    assert str(tmp_path) not in response.text
