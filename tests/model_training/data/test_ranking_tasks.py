"""Frozen ranking tasks: of whom, against what, and that they stay as they were frozen."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from model_training.data.protocols import PROTOCOLS
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.splits import split_users
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import frozen_tasks, some_histories

# Of `some_histories`, by the code that first froze them: published numbers rest on these draws.
FROZEN_SHA256 = "cc3503a11fa39b67879ea39861383bcc9768e96bb830020e007ea6aea6b47c33"
SAMPLED = [name for name, protocol in PROTOCOLS.items() if not protocol.whole_catalogue]


def write_world(data: str, histories, num_items: int = 40) -> str:
    write_items(data, {f"i{number}": f"thing {number}" for number in range(num_items)})
    write_interactions(data, histories)
    return data


@pytest.fixture
def world(tmp_path: Path) -> str:
    return write_world(str(tmp_path), some_histories())


def rewrite(world: str, change, *, honest: bool) -> None:
    """Change the stored rows; `honest` also stores the hash of what is there then."""
    from model_training.data.ranking_tasks import _digest

    artifact = Artifact(world, "negatives-chrono-uniform")
    table = artifact.read()
    rows = table.to_pylist()
    change(rows)
    part = next(Path(world).glob("negatives-chrono-uniform/*/part-00000.parquet"))
    pa.parquet.write_table(pa.Table.from_pylist(rows, table.schema), part)
    if honest:
        manifest = Path(world) / "negatives-chrono-uniform" / "manifest.json"
        values = json.loads(manifest.read_text())
        values["definition"]["sha256"] = _digest(rows)
        manifest.write_text(json.dumps(values))


@pytest.mark.parametrize("protocol", SAMPLED)
@pytest.mark.parametrize("part", ["test", "validation"])
def test_every_user_of_a_part_gets_one_trial_with_twenty_negatives(world, protocol, part):
    histories = some_histories()
    tasks = frozen_tasks(world, protocol, part).tasks

    split = split_users(list(histories))
    assert [t.user_id for t in tasks] == sorted(u for u in histories if split[u] == part)
    for task in tasks:
        assert len(set(task.negatives)) == 20
        assert not set(task.negatives) & set(histories[task.user_id])


def test_the_chrono_target_is_the_last_item(world: str):
    for task in frozen_tasks(world, "chrono-uniform").tasks:
        assert (*task.history, task.target) == tuple(some_histories()[task.user_id])


def test_the_paper_target_hides_what_came_after_it(tmp_path: Path):
    everyone = ["i1", "i2", "i3", "i4", "i5", "i6"]
    histories = {f"u{n}": [*everyone, f"i{n + 7}", f"i{n + 8}"] for n in range(30)}
    write_world(str(tmp_path), histories)

    for task in frozen_tasks(str(tmp_path), "paper").tasks:
        assert (*task.history, task.target) == tuple(everyone)
        assert not set(task.negatives) & set(histories[task.user_id])


def test_the_whole_catalogue_needs_no_negatives(world: str):
    tasks = frozen_tasks(world, "full").tasks

    assert [task.negatives for task in tasks] == [()] * 3


def test_popular_negatives_are_items_that_somebody_is_seen_to_take(tmp_path: Path):
    write_world(str(tmp_path), some_histories(), num_items=400)

    taken = {item for history in some_histories().values() for item in history}
    for task in frozen_tasks(str(tmp_path), "chrono-popularity").tasks:
        assert set(task.negatives) <= taken


def test_test_and_validation_users_have_files_of_their_own(world: str):
    for part in ("test", "validation"):
        frozen_tasks(world, "chrono-era", part)

    assert Artifact(world, "negatives-chrono-era").exists()
    assert Artifact(world, "negatives-chrono-era-validation").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_order_of_users_freezes_the_same_negatives(world: str, tmp_path: Path, protocol):
    other = write_world(str(tmp_path / "other"), dict(reversed(some_histories().items())))

    assert frozen_tasks(other, protocol).tasks == frozen_tasks(world, protocol).tasks


def test_another_process_freezes_the_same_negatives(world: str, tmp_path: Path):
    other = write_world(str(tmp_path / "other"), some_histories())
    program = (
        "from tests.model_training.builders import frozen_tasks\n"
        f"frozen_tasks({other!r}, 'chrono-popularity')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])
    frozen_tasks(world, "chrono-popularity")

    hashes = [
        Artifact(data, "negatives-chrono-popularity").manifest().definition["sha256"]
        for data in (world, other)
    ]
    assert hashes[0] == hashes[1]


def test_the_negatives_of_chrono_uniform_are_those_of_the_first_release(world: str):
    frozen_tasks(world, "chrono-uniform")

    definition = Artifact(world, "negatives-chrono-uniform").manifest().definition
    assert definition["sha256"] == FROZEN_SHA256


def test_negatives_that_were_tampered_with_are_refused(world: str):
    frozen_tasks(world, "chrono-uniform")

    def swap(rows):
        rows[0]["negatives"][:2] = rows[0]["negatives"][1::-1]

    rewrite(world, swap, honest=False)
    with pytest.raises(ArtifactMismatch, match="not those that were frozen"):
        frozen_tasks(world, "chrono-uniform")


def take_from_history(rows):
    rows[0]["negatives"][0] = some_histories()[rows[0]["user_id"]][0]


def take_target(rows):
    rows[0]["negatives"][0] = rows[0]["target"]


def take_another_target(rows):
    rows[0]["target"] = some_histories()[rows[0]["user_id"]][0]


def repeat_a_negative(rows):
    rows[0]["negatives"][0] = rows[0]["negatives"][1]


def drop_a_negative(rows):
    del rows[0]["negatives"][0]


def repeat_a_user(rows):
    rows[1] = rows[0]


def take_a_training_user(rows):
    split = split_users(list(some_histories()))
    rows[0]["user_id"] = next(user for user, part in split.items() if part == "train")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (take_from_history, "do not fit the interactions"),
        (take_target, "do not fit the interactions"),
        (take_another_target, "do not fit the interactions"),
        (repeat_a_negative, "frozen negatives"),
        (drop_a_negative, "19 frozen negatives"),
        (repeat_a_user, "a user twice"),
        (take_a_training_user, "a task of the test users and is none"),
    ],
)
def test_rows_that_cannot_be_are_refused_whatever_their_hash(world: str, change, reason):
    frozen_tasks(world, "chrono-uniform")
    rewrite(world, change, honest=True)

    with pytest.raises(ArtifactMismatch, match=reason):
        frozen_tasks(world, "chrono-uniform")


def test_new_interactions_get_new_negatives(world: str):
    before = frozen_tasks(world, "chrono-uniform").fingerprint
    write_interactions(world, some_histories(20))

    assert frozen_tasks(world, "chrono-uniform").fingerprint != before


def test_an_unknown_protocol_is_refused_with_the_known_ones(world: str):
    with pytest.raises(InputError, match="choose from chrono-uniform"):
        frozen_tasks(world, "chrono-unifrom")


@pytest.mark.parametrize("protocol", ["chrono-uniform", "full"])
def test_a_catalogue_too_small_for_negatives_is_refused(tmp_path: Path, protocol: str):
    write_world(str(tmp_path), {"u1": ["i1", "i2"]}, num_items=10)

    with pytest.raises(EmptyDataset, match="fewer than 20 negative samples"):
        frozen_tasks(str(tmp_path), protocol)


def test_a_user_without_a_task_is_counted_and_the_others_keep_theirs(tmp_path: Path):
    histories = some_histories()
    split = split_users(list(histories))
    first = next(user for user in sorted(histories) if split[user] == "test")
    write_world(str(tmp_path), histories | {first: ["i1"]})

    frozen = frozen_tasks(str(tmp_path), "chrono-uniform")
    assert (len(frozen.tasks), frozen.num_refused) == (2, 1)


def test_no_validation_user_is_refused(tmp_path: Path):
    write_world(str(tmp_path), {"u1": ["i1", "i2"]})

    with pytest.raises(EmptyDataset, match="no validation user of 1 users"):
        frozen_tasks(str(tmp_path), "chrono-uniform", "validation")
