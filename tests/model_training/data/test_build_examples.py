"""Training rows: who gives them, with which items, and that they are made again alike."""

from collections import Counter
from pathlib import Path

import pytest

from model_training.data import build_examples
from model_training.rankers import fit_retrieval
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, ArtifactMissing, EmptyDataset, TargetLeak
from services.core.splits import split_users
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import some_histories, write_preferences, write_world


def rows_of(data: str) -> list[dict]:
    return Artifact(data, "examples").read().to_pylist()


def test_training_and_validation_users_give_rows_and_test_users_none(data: str):
    build_examples.run(data, num_negatives=3)

    split = split_users(list(some_histories()))
    rows = rows_of(data)
    assert all(row["split"] == split[row["user_id"]] for row in rows)
    assert {row["user_id"] for row in rows} == {u for u, part in split.items() if part != "test"}


def test_a_user_gives_the_target_first_and_then_items_never_taken(data: str):
    build_examples.run(data, num_negatives=3)

    by_user: dict[str, list[dict]] = {}
    for row in rows_of(data):
        by_user.setdefault(row["user_id"], []).append(row)
    for user, history in some_histories().items():
        if user in by_user:
            target, *negatives = by_user[user]
            assert (target["item_id"], target["label"]) == (history[-1], True)
            assert not {row["item_id"] for row in negatives} & set(history)
            assert [row["label"] for row in negatives] == [False] * 3


def test_a_row_carries_its_users_preference(data: str):
    build_examples.run(data)

    assert all(row["preference"] == f"Likes what {row['user_id']} likes." for row in rows_of(data))


def test_counts_say_what_was_written(data: str):
    counts = build_examples.run(data, num_negatives=3)

    found = Counter(row["split"] for row in rows_of(data))
    assert counts == {
        "users": 27,
        "train": found["train"],
        "validation": found["validation"],
        "positive": 27,
        "uniform": 81,
        "hard": 0,
        "quarantined": 0,
    }


def test_training_users_get_hard_negatives_behind_the_uniform_ones(data: str):
    fit_retrieval.run(data, epochs=1)
    build_examples.run(data, num_negatives=2, num_hard_negatives=3)

    kinds: dict[str, list[str]] = {}
    for row in rows_of(data):
        kinds.setdefault(row["user_id"], []).append(row["kind"])
    split = split_users(list(some_histories()))
    assert all(
        found
        == ["positive", "uniform", "uniform"] + ["hard"] * (3 if split[user] == "train" else 0)
        for user, found in kinds.items()
    )


def test_a_hard_negative_is_no_item_that_its_user_took(data: str):
    fit_retrieval.run(data, epochs=1)
    build_examples.run(data, num_negatives=2, num_hard_negatives=8)

    hard = [row for row in rows_of(data) if row["kind"] == "hard"]
    assert len(hard) == 24 * 8
    assert not [row for row in hard if row["item_id"] in some_histories()[row["user_id"]]]
    assert not [row for row in hard if row["label"]]


def test_the_cheap_rankers_are_an_input_of_hard_negatives_alone(data: str):
    fit_retrieval.run(data, epochs=1)
    build_examples.run(data, num_negatives=2)
    assert "retrieval" not in Artifact(data, "examples").manifest().inputs

    build_examples.run(data, num_negatives=2, num_hard_negatives=1)
    rankers = Artifact(data, "retrieval").manifest().fingerprint
    assert Artifact(data, "examples").manifest().inputs["retrieval"] == rankers


def test_uniform_negatives_are_the_same_with_and_without_hard_ones(data: str):
    fit_retrieval.run(data, epochs=1)
    build_examples.run(data, num_negatives=2)
    plain = rows_of(data)
    build_examples.run(data, num_negatives=2, num_hard_negatives=1)

    assert [row for row in rows_of(data) if row["kind"] != "hard"] == plain


def test_hard_negatives_need_rankers_of_these_interactions(data: str):
    with pytest.raises(ArtifactMissing, match="msr fit-retrieval"):
        build_examples.run(data, num_hard_negatives=1)

    fit_retrieval.run(data, epochs=1)
    histories = some_histories(29)
    write_interactions(data, histories)
    write_preferences(data, {user: history[:-1] for user, history in histories.items()})
    with pytest.raises(ArtifactMismatch, match="run `msr fit-retrieval` again"):
        build_examples.run(data, num_hard_negatives=1)


def test_users_without_a_preference_are_left_out_and_split_as_before(tmp_path: Path):
    split = split_users(list(some_histories()))
    users = [f"u{number}" for number in range(12)]
    write_world(str(tmp_path), users=users)
    build_examples.run(str(tmp_path))

    rows = rows_of(str(tmp_path))
    assert {row["user_id"] for row in rows} == {user for user in users if split[user] != "test"}
    assert all(row["split"] == split[row["user_id"]] for row in rows)


def test_the_same_inputs_give_the_same_bytes(data: str, tmp_path: Path):
    build_examples.run(data)
    write_world(str(tmp_path / "again"))
    build_examples.run(str(tmp_path / "again"))

    def content(folder: str) -> dict[str, bytes]:
        root = Path(folder) / "examples"
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert content(data) == content(str(tmp_path / "again"))


def test_another_seed_draws_other_negatives(data: str):
    build_examples.run(data, seed=1)
    first = [row["item_id"] for row in rows_of(data)]
    build_examples.run(data, seed=2)

    assert [row["item_id"] for row in rows_of(data)] != first


def test_preferences_that_saw_the_target_are_refused(data: str):
    write_preferences(data, some_histories(), cut="none")

    with pytest.raises(TargetLeak):
        build_examples.run(data)


def test_a_user_with_too_few_items_left_is_quarantined_and_the_others_go_on(tmp_path: Path):
    data = str(tmp_path)
    histories = some_histories() | {"glutton": [f"i{number}" for number in range(39)]}
    assert split_users(list(histories))["glutton"] != "test"
    write_items(data, {f"i{number}": f"thing {number}" for number in range(40)})
    write_interactions(data, histories)
    write_preferences(data, {user: history[:-1] for user, history in histories.items()})
    build_examples.run(data, num_negatives=2)

    assert Artifact(data, "examples").manifest().quarantined[0]["row"] == "glutton"
    assert "glutton" not in {row["user_id"] for row in rows_of(data)}


def test_preferences_of_test_users_alone_are_refused(tmp_path: Path):
    split = split_users(list(some_histories()))
    write_world(str(tmp_path), users=[user for user, part in split.items() if part == "test"])

    with pytest.raises(EmptyDataset, match="is a training user"):
        build_examples.run(str(tmp_path))
