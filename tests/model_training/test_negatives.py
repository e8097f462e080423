"""Negative samples: whom they may hit, and that they stay as they were frozen."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from model_training.negatives import draw_uniform, load_trials
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError, RowRefused
from services.core.splits import split_users
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import some_histories


def draw(user: str, taken=(), *, num_items=50, num_negatives=5, purpose="test", seed=1):
    return draw_uniform(
        user,
        taken,
        num_items=num_items,
        num_negatives=num_negatives,
        purpose=purpose,
        seed=seed,
    ).tolist()


def test_a_users_negatives_are_distinct_and_never_taken():
    for user in range(100):
        taken = list(range(user % 40))
        negatives = draw(f"u{user}", taken)
        assert len(set(negatives)) == 5
        assert not set(negatives) & set(taken)


def test_a_draw_depends_on_user_purpose_and_seed_alone():
    assert draw("u1") == draw("u1")
    assert draw("u1") != draw("u2")
    assert draw("u1") != draw("u1", purpose="other")
    assert draw("u1") != draw("u1", seed=2)


def test_every_untaken_item_is_drawn_equally_often():
    drawn = Counter(
        index for user in range(4000) for index in draw(f"u{user}", [0, 1], num_items=12)
    )

    assert set(drawn) == set(range(2, 12))  # 2,000 times each, standard deviation 32
    assert all(abs(count - 2000) < 160 for count in drawn.values())


def test_exactly_enough_untaken_items_are_all_drawn():
    assert sorted(draw("u1", range(5), num_items=10)) == [5, 6, 7, 8, 9]


def test_a_user_who_took_nearly_everything_is_refused():
    with pytest.raises(RowRefused, match="'u1' took 6 of 10 items"):
        draw("u1", range(6), num_items=10)


@pytest.fixture
def world(tmp_path: Path) -> str:
    data = str(tmp_path)
    write_items(data, {f"i{number}": f"thing {number}" for number in range(40)})
    write_interactions(data, some_histories())
    return data


def test_every_test_user_gets_one_trial_with_twenty_negatives(world: str):
    histories = some_histories()
    trials = load_trials(world, "chrono-uniform").trials

    split = split_users(list(histories))
    assert {trial.user_id for trial in trials} == {u for u in histories if split[u] == "test"}
    for trial in trials:
        assert (*trial.history, trial.target) == tuple(histories[trial.user_id])
        assert len(trial.negatives) == 20
        assert not set(trial.negatives) & set(histories[trial.user_id])


def test_another_order_of_users_freezes_the_same_negatives(world: str, tmp_path: Path):
    other = str(tmp_path / "other")
    write_items(other, {f"i{number}": f"thing {number}" for number in range(40)})
    write_interactions(other, dict(reversed(some_histories().items())))

    assert (
        load_trials(other, "chrono-uniform").trials == load_trials(world, "chrono-uniform").trials
    )


def test_negatives_that_were_tampered_with_are_refused(world: str):
    load_trials(world, "chrono-uniform")
    artifact = Artifact(world, "negatives-chrono-uniform")
    rows = artifact.read().to_pylist()
    rows[0]["negatives"][0], rows[0]["negatives"][1] = rows[0]["negatives"][1::-1]
    part = next(Path(world).glob("negatives-chrono-uniform/*/part-00000.parquet"))
    pa.parquet.write_table(pa.Table.from_pylist(rows, artifact.read().schema), part)

    with pytest.raises(ArtifactMismatch, match="not those that were frozen"):
        load_trials(world, "chrono-uniform")


def test_new_interactions_get_new_negatives(world: str):
    before = load_trials(world, "chrono-uniform").fingerprint
    write_interactions(world, some_histories(20))

    assert load_trials(world, "chrono-uniform").fingerprint != before


def test_an_unknown_protocol_is_refused_with_the_known_ones(world: str):
    with pytest.raises(InputError, match="choose from chrono-uniform"):
        load_trials(world, "chrono-unifrom")


def test_a_catalogue_too_small_for_negatives_is_refused(tmp_path: Path):
    write_items(str(tmp_path), {f"i{number}": "thing" for number in range(10)})
    write_interactions(str(tmp_path), {"u1": ["i1", "i2"]})

    with pytest.raises(EmptyDataset, match="fewer than 20 negative samples"):
        load_trials(str(tmp_path), "chrono-uniform")
