"""Evaluation: the right users, the right candidates, and ablations that ablate."""

from collections import Counter

import pytest

from model_training import evaluate
from model_training.negatives import load_trials
from services.core.artifacts import Artifact
from services.core.errors import (
    AnswerTokenMissing,
    EmptyDataset,
    EngineUnavailable,
    InputError,
    TargetLeak,
)
from services.core.images import blank_image
from services.core.scoring import AnswerLogprobs
from services.core.splits import split_users
from services.engines.contract import EngineIdentity
from tests.model_training.builders import a_cover, some_histories, write_preferences, write_world


class RecordingEngine:
    """Scores by a rule over the messages and keeps them: no real engine shows its prompts."""

    def __init__(self, margin=lambda messages: 0.0, *, adapter="a1", fail_after=None):
        self.identity = EngineIdentity(model="m1", adapter=adapter)
        self.num_shortened = 0
        self.asked = []
        self._margin = margin
        self._fail_after = fail_after

    async def score(self, messages):
        if self._fail_after is not None and len(self.asked) >= self._fail_after:
            raise EngineUnavailable("gone")
        self.asked.append(messages[0])
        return AnswerLogprobs(yes=self._margin(messages[0]), no=0.0)


def test_users() -> list[str]:
    return [user for user, part in split_users(list(some_histories())).items() if part == "test"]


test_users.__test__ = False


async def test_every_test_user_is_scored_over_the_target_and_twenty_negatives(data: str):
    engine = RecordingEngine()
    result = await evaluate.run(data, engine)

    assert (result["users"], result["candidates"]) == (3, 21)
    asked = Counter(message.text.split("Likes what ")[1].split()[0] for message in engine.asked)
    assert asked == dict.fromkeys(test_users(), 21)


async def test_a_model_that_knows_the_targets_is_perfect(data: str):
    targets = {trial.target for trial in load_trials(data, "chrono-uniform").trials}
    kinds = {f'"a thing of kind {target[1:]}"' for target in targets}
    knowing = RecordingEngine(lambda message: float(any(kind in message.text for kind in kinds)))
    result = await evaluate.run(data, knowing, models=["mllm"])

    assert result["mllm"]["hr@5"] == 1.0
    assert result["mllm"]["auc"] > 0.9


async def test_baselines_stand_beside_the_model(data: str):
    result = await evaluate.run(data, RecordingEngine())

    for model in ("mllm", "popularity", "item-knn", "random"):
        assert {"auc", "auc_user", "hr@5", "mrr@5", "ndcg@10"} <= set(result[model])


async def test_baselines_alone_need_neither_engine_nor_preferences(tmp_path):
    write_world(str(tmp_path), users=["u0"])
    result = await evaluate.run(str(tmp_path), None, models=["popularity", "random"])

    assert result["users"] == 3


async def test_only_users_with_a_preference_are_evaluated(tmp_path):
    write_world(str(tmp_path), users=test_users()[:2])

    assert (await evaluate.run(str(tmp_path), RecordingEngine()))["users"] == 2


async def test_a_rerun_asks_nothing_again_and_gives_the_same_numbers(data: str):
    first = await evaluate.run(data, RecordingEngine(lambda message: len(message.text) / 100))
    silent = RecordingEngine()
    second = await evaluate.run(data, silent)

    assert silent.asked == []
    assert first["mllm"] == second["mllm"]


async def test_a_killed_run_goes_on_behind_its_last_whole_shard(data: str):
    with pytest.raises(EngineUnavailable):
        await evaluate.run(data, RecordingEngine(fail_after=43), users_per_shard=1)
    rest = RecordingEngine()
    await evaluate.run(data, rest, users_per_shard=1)

    assert len(rest.asked) == 21


async def test_another_adapter_is_scored_anew(data: str):
    await evaluate.run(data, RecordingEngine(adapter="a1"))
    engine = RecordingEngine(adapter="a2")
    await evaluate.run(data, engine)

    assert len(engine.asked) == 63


async def test_blank_covers_replace_every_cover_and_leave_text_only_items_alone(data: str):
    seeing, blind = RecordingEngine(), RecordingEngine()
    await evaluate.run(data, seeing)
    await evaluate.run(data, blind, blank_covers=True)

    shown = [message.picture and message.picture.data for message in blind.asked]
    assert set(shown) == {None, blank_image(56)}
    assert [m.text for m in blind.asked] == [m.text for m in seeing.asked]
    assert {m.picture and m.picture.data for m in seeing.asked} >= {a_cover("green"), None}


async def test_other_preference_gives_nobody_their_own(data: str):
    engine = RecordingEngine()
    await evaluate.run(data, engine, other_preference=True)

    trials = load_trials(data, "chrono-uniform").trials
    for row, trial in enumerate(trials):
        asked = engine.asked[21 * row : 21 * (row + 1)]
        assert not [message for message in asked if f"Likes what {trial.user_id} " in message.text]
    assert len({message.text.split("Likes what ")[1] for message in engine.asked}) == 3


async def test_other_preference_needs_a_second_user(tmp_path):
    write_world(str(tmp_path), users=test_users()[:1])

    with pytest.raises(InputError, match="at least two"):
        await evaluate.run(str(tmp_path), RecordingEngine(), other_preference=True)


async def test_variants_keep_their_scores_apart(data: str):
    for options in ({}, {"blank_covers": True}, {"other_preference": True}):
        await evaluate.run(data, RecordingEngine(), **options)
    await evaluate.run(data, RecordingEngine(adapter=""))

    for variant in ("adapter", "adapter-blank-covers", "adapter-other-preference", "base"):
        assert Artifact(data, f"scores-chrono-uniform-{variant}").exists()


async def test_a_score_that_is_no_number_ends_the_evaluation(data: str):
    with pytest.raises(AnswerTokenMissing):
        await evaluate.run(data, RecordingEngine(lambda message: float("nan")))


async def test_preferences_that_saw_the_target_are_refused(data: str):
    write_preferences(data, some_histories(), cut="none")

    with pytest.raises(TargetLeak):
        await evaluate.run(data, RecordingEngine())


async def test_preferences_of_training_users_alone_are_refused(tmp_path):
    write_world(str(tmp_path), users=[u for u in some_histories() if u not in test_users()])

    with pytest.raises(EmptyDataset, match="is a test user"):
        await evaluate.run(str(tmp_path), RecordingEngine())


async def test_an_unknown_model_is_refused(data: str):
    with pytest.raises(InputError, match="'sasrec'"):
        await evaluate.run(data, RecordingEngine(), models=["sasrec"])


async def test_the_engine_is_required_for_its_model(data: str):
    with pytest.raises(InputError, match="needs an engine"):
        await evaluate.run(data, None)
