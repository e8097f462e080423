"""The demo world: deterministic, with visual attributes only in the cover."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageChops

from model_training.demo.attributes import VALUES, Attributes
from model_training.demo.covers import draw_cover
from model_training.demo.sentences import named_values
from model_training.demo.world import (
    DemoWorld,
    draw_taste,
    drifted_taste,
    taste_log_odds,
    write_files,
)


def a_world(seed: int = 3, num_items: int = 60, num_users: int = 20) -> DemoWorld:
    return DemoWorld(seed, num_items, num_users)


def a_cover(shown: Attributes) -> Image.Image:
    return Image.open(io.BytesIO(draw_cover(shown, Random(1), size=56)))


def test_the_same_seed_gives_the_same_world_down_to_the_bytes_of_a_cover() -> None:
    first, again = a_world(), a_world()

    assert first.items == again.items
    assert first.users == again.users
    assert first.items[5].cover_png() == again.items[5].cover_png()


def test_another_seed_gives_other_items_and_other_users() -> None:
    first, other = a_world(seed=3), a_world(seed=4)

    assert not {item.cover_png() for item in first.items} & {i.cover_png() for i in other.items}
    assert [user.choices for user in first.users] != [user.choices for user in other.users]


def test_titles_are_unique_and_name_topic_and_mood_but_nothing_that_only_the_cover_shows() -> None:
    items = a_world(num_items=200).items

    assert len({item.title for item in items}) == 200
    for item in items:
        assert named_values(item.title, "topic") == {item.attributes.topic}
        assert named_values(item.title, "mood") == {item.attributes.mood}
        assert not named_values(item.title, "palette") | named_values(item.title, "style")


@pytest.mark.parametrize("name", ["palette", "topic", "style"])
def test_a_cover_differs_visibly_when_one_attribute_differs(name: str) -> None:
    shown = Attributes(palette="blue", topic="house", style="flat")
    first, *others = VALUES[name]
    drawn = a_cover(replace(shown, **{name: first}))

    for value in others:
        other = a_cover(replace(shown, **{name: value}))
        changed = ImageChops.difference(drawn, other).convert("L")
        assert sum(changed.histogram()[26:]) > 0.02 * 56 * 56  # pixels


def test_no_user_takes_an_item_twice_and_time_only_goes_forward() -> None:
    for user in a_world(num_users=50).users:
        assert len(set(user.choices)) == len(user.choices) == len(user.timestamps_ms)
        assert all(
            earlier < later
            for earlier, later in zip(user.timestamps_ms, user.timestamps_ms[1:], strict=False)
        )


def test_a_drift_moves_one_or_two_attributes() -> None:
    rng = Random(2)
    moved = set()
    for _ in range(50):
        taste = draw_taste(rng)
        later = drifted_taste(taste, rng)
        moved.add(sum(taste.value_of(name) != later.value_of(name) for name in VALUES))

    assert moved == {1, 2}


def test_users_follow_their_taste_in_what_only_the_cover_shows_more_than_in_the_title() -> None:
    world = a_world(num_items=480, num_users=60)

    def share_kept(name: str) -> float:
        kept = [
            world.items[choice].attributes.value_of(name) == user.first_taste.value_of(name)
            for user in world.users
            for choice in user.choices[: user.drifts_at]
        ]
        return sum(kept) / len(kept)

    assert min(share_kept("palette"), share_kept("style")) > 0.85
    assert max(share_kept("topic"), share_kept("mood")) < 0.75


def test_the_oracle_prefers_an_item_that_matches_the_taste_most_where_users_are_strict() -> None:
    taste = Attributes("red", "star", "flat", "calm")
    other_mood = Attributes("red", "star", "flat", "gloomy")
    other_palette = Attributes("blue", "star", "flat", "calm")

    assert (
        taste_log_odds(taste, taste)
        > taste_log_odds(taste, other_mood)
        > taste_log_odds(taste, other_palette)
    )


def test_the_written_catalogue_names_covers_that_exist_and_items_that_interactions_use(
    tmp_path: Path,
) -> None:
    write_files(tmp_path, seed=5, num_items=30, num_users=4)

    items = list(csv.DictReader(io.StringIO((tmp_path / "items.csv").read_text())))
    interactions = list(csv.DictReader(io.StringIO((tmp_path / "interactions.csv").read_text())))
    truth = json.loads((tmp_path / "truth.json").read_text())

    assert len(items) == len(truth["items"]) == 30
    assert len({row["user_id"] for row in interactions}) == 4
    assert {row["item_id"] for row in interactions} <= {row["item_id"] for row in items}
    assert all(Image.open(tmp_path / row["image"]).size == (56, 56) for row in items)
