"""Step 3: waves over all users give what the recurrence gives user by user, and know their cut."""

from pathlib import Path

import pytest

from services.batch import build_preferences, summarize_images
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMissing, EmptyDataset, EngineUnavailable
from services.core.prompts import (
    PREFERENCE_LIMITS,
    HistoryItem,
    preference_messages,
)
from services.core.recurrence import PreferenceState, advance, current_preference
from services.core.splits import leave_last_out
from tests.artifact_builders import EchoEngine, write_interactions, write_items

TITLES = {f"i{n}": f"t{n}" for n in range(10)}
HISTORIES = {
    "u1": ["i0", "i1", "i2", "i3", "i4"],
    "u2": ["i5", "i6", "i7", "i8"],
    "u3": [f"i{n}" for n in range(9)],
    "u4": ["i9", "i8"],
}


@pytest.fixture
async def data(tmp_path: Path) -> str:
    write_items(str(tmp_path), TITLES)
    write_interactions(str(tmp_path), HISTORIES)
    await summarize_images.run(str(tmp_path), EchoEngine())
    return str(tmp_path)


def rows(data: str, name: str = "preferences") -> dict[str, dict]:
    return {row["user_id"]: row for row in Artifact(data, name).read().to_pylist()}


async def recurrence(history: list[str]) -> tuple[list[str], str]:
    async def write(previous: str, block: list[str]) -> str:
        items = [HistoryItem(TITLES[item_id], TITLES[item_id]) for item_id in block]
        return await EchoEngine().generate(preference_messages(previous, items), PREFERENCE_LIMITS)

    state = await advance(PreferenceState(), history, write=write)
    blocks = [block.preference for block in state.blocks]
    return blocks, await current_preference(state, write=write)


async def test_waves_give_what_the_recurrence_gives_user_by_user(data: str):
    await build_preferences.run(data, EchoEngine())

    for user_id, row in rows(data).items():
        history = leave_last_out(HISTORIES[user_id])[0]
        assert row["item_ids"] == history
        assert (row["block_preferences"], row["preference"]) == await recurrence(history)


async def test_the_default_cut_leaves_the_target_out_and_the_manifest_says_so(data: str):
    await build_preferences.run(data, EchoEngine())

    assert Artifact(data, "preferences").manifest().definition["cut"] == "last"
    assert all(row["item_ids"][-1] != HISTORIES[user][-1] for user, row in rows(data).items())


async def test_for_the_paper_protocol_what_came_before_its_target_is_covered(data: str):
    await build_preferences.run(data, EchoEngine(), cut="popular")

    # u1, u3 and u4 train. The six of u3 are i0 to i4, which u1 took too, and then i8, as u4 did.
    covered = {user: row["item_ids"] for user, row in rows(data, "preferences-popular").items()}
    assert covered["u3"] == [f"i{n}" for n in range(8)]
    assert covered["u1"] == ["i0", "i1", "i2", "i3"]


async def test_for_serving_the_whole_history_goes_into_an_artifact_of_its_own(data: str):
    await build_preferences.run(data, EchoEngine(), cut="none")

    assert not Artifact(data, "preferences").exists()
    assert rows(data, "preferences-whole")["u2"]["item_ids"] == HISTORIES["u2"]


async def test_the_direct_variant_reads_the_history_in_one_prompt(data: str):
    engine = EchoEngine()
    await build_preferences.run(data, engine, direct=True)

    assert len(engine.prompts) == len(HISTORIES)
    assert rows(data, "preferences-direct")["u1"]["preference"] == "t0+t1+t2+t3"
    assert rows(data, "preferences-direct")["u2"]["block_preferences"] == []


@pytest.mark.parametrize("answered", [0, 3, 5, 6])
async def test_a_run_that_lost_its_engine_ends_with_the_same_rows(data: str, answered: int):
    with pytest.raises(EngineUnavailable):
        await build_preferences.run(data, EchoEngine(fail_after=answered), shard_size=2)

    resumed = EchoEngine()
    await build_preferences.run(data, resumed, shard_size=2)

    assert rows(data)["u3"]["preference"] == (await recurrence(HISTORIES["u3"][:-1]))[1]
    assert answered + len(resumed.prompts) <= 7 + 2 * 2  # the shards in flight are redone
    assert not (Path(data) / "preferences-waves").exists()


async def test_a_refused_user_is_quarantined_and_the_others_go_on(data: str):
    counts = await build_preferences.run(data, EchoEngine(refuse="t5"))

    assert set(rows(data)) == {"u1", "u4"}
    assert counts["quarantined"] == 2
    assert counts["users"] == 2


async def test_quarantined_users_can_be_retried_alone(data: str):
    await build_preferences.run(data, EchoEngine(refuse="t5"))
    healthy = EchoEngine()

    counts = await build_preferences.run(data, healthy, retry_quarantined=True)

    texts = counts.pop("texts")
    assert counts == {"users": 4, "blocks": 7, "quarantined": 0, "shortened": 0}
    assert (texts["num_texts"], texts["num_empty"]) == (4, 0)
    assert len(healthy.prompts) == 4  # one block of u2 and three of u3


async def test_more_users_keep_what_fewer_users_had(data: str):
    await build_preferences.run(data, EchoEngine(), num_users=2)
    assert set(rows(data)) == {"u1", "u2"}
    engine = EchoEngine()

    await build_preferences.run(data, engine)

    assert set(rows(data)) == set(HISTORIES)
    assert len(engine.prompts) == 3 + 1  # blocks of u3 and u4 alone


async def test_new_interactions_redo_only_the_blocks_they_touch(data: str):
    await build_preferences.run(data, EchoEngine())
    write_interactions(data, HISTORIES | {"u1": [*HISTORIES["u1"], "i9"]})
    engine = EchoEngine()

    await build_preferences.run(data, engine)

    assert len(engine.prompts) == 1
    assert rows(data)["u1"]["item_ids"] == HISTORIES["u1"]


async def test_a_user_without_a_target_is_quarantined(data: str):
    write_interactions(data, HISTORIES | {"u5": ["i1"], "u6": []})

    counts = await build_preferences.run(data, EchoEngine())

    assert counts["quarantined"] == 2
    reasons = {
        row["row"]: row["reason"] for row in Artifact(data, "preferences").manifest().quarantined
    }
    assert "1 interaction" in reasons["u5"]


async def test_an_item_without_a_summary_is_described_by_its_title(data: str):
    await summarize_images.run(data, EchoEngine(refuse="t1"))
    write_items(data, TITLES | {"i1": "T1"})
    await summarize_images.run(data, EchoEngine(refuse="T1"))

    await build_preferences.run(data, EchoEngine())

    assert "T1" in rows(data)["u1"]["preference"]


async def test_no_history_at_all_is_an_error_that_says_what_to_do(data: str):
    write_interactions(data, {"u1": []})

    with pytest.raises(EmptyDataset, match="prepare a catalogue"):
        await build_preferences.run(data, EchoEngine())


async def test_without_summaries_the_message_names_the_step_to_run(tmp_path: Path):
    write_items(str(tmp_path), TITLES)
    write_interactions(str(tmp_path), HISTORIES)

    with pytest.raises(ArtifactMissing, match="msr summarize-images"):
        await build_preferences.run(str(tmp_path), EchoEngine())
