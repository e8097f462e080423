import pytest

from model_training.demo.attributes import VALUES, Attributes
from model_training.demo.personas import demo_personas, look
from model_training.demo.world import DemoUser, DemoWorld


@pytest.fixture(scope="module")
def world() -> DemoWorld:
    return DemoWorld(num_users=200)


def users_of(world: DemoWorld) -> list[DemoUser]:
    by_id = {user.user_id: user for user in world.users}
    return [by_id[persona.user_id] for persona in demo_personas(world)]


def test_six_users_move_from_one_palette_and_style_to_another(world: DemoWorld) -> None:
    chosen = users_of(world)
    assert len({user.user_id for user in chosen}) == 6
    for user in chosen:
        assert user.first_taste.palette != user.last_taste.palette
        assert user.first_taste.style != user.last_taste.style


def test_they_differ_from_one_another(world: DemoWorld) -> None:
    chosen = users_of(world)
    assert {user.first_taste.style for user in chosen} == set(VALUES["style"])
    assert len({user.first_taste.palette for user in chosen}) >= 4
    assert len({user.last_taste.palette for user in chosen}) >= 4


def test_most_of_what_they_took_is_what_they_are_said_to_take(world: DemoWorld) -> None:
    for user in users_of(world):
        taken = [look(world.items[choice].attributes) for choice in user.choices]
        before, after = taken[: user.drifts_at], taken[user.drifts_at :]
        assert before.count(look(user.first_taste)) * 2 > len(before)
        assert after.count(look(user.last_taste)) * 2 > len(after)


def test_they_are_the_same_every_time_and_never_the_user_of_the_walk(world: DemoWorld) -> None:
    again = DemoWorld(num_users=200)
    assert demo_personas(again) == demo_personas(world)
    assert world.users[0].user_id not in {each.user_id for each in demo_personas(world)}


def test_a_name_says_from_what_to_what(world: DemoWorld) -> None:
    assert look(Attributes("red", "star", "outline", "calm")) == "red outlines"
    assert look(Attributes("blue", "moon", "flat", "brave")) == "flat blue shapes"
    first = demo_personas(world)[0]
    assert first.name == "From green stripes to flat gray shapes"
    assert first.about == (
        "The first 5 interactions are mostly green stripes, the next 9 mostly flat gray shapes."
    )
