"""Evaluation: the right users, the right candidates, every model, and ablations that ablate."""

import json
import shutil
from collections import Counter

import pytest

from model_training.evaluation import evaluate
from model_training.evaluation.results import MODELS
from services.core.artifacts import Artifact
from services.core.errors import (
    AnswerTokenMissing,
    ArtifactMissing,
    EmptyDataset,
    EngineUnavailable,
    InputError,
    TargetLeak,
)
from services.core.images import blank_image
from tests.artifact_builders import write_interactions
from tests.model_training.builders import (
    a_cover,
    frozen_tasks,
    some_histories,
    write_preferences,
    write_world,
)
from tests.model_training.evaluation.evaluating import RecordingEngine, ask, test_users


async def test_every_test_user_is_scored_over_the_target_and_twenty_negatives(data: str):
    engine = RecordingEngine()
    result = await ask(data, engine)

    assert (len(result.users), result.num_candidates) == (3, 21)
    asked = Counter(message.text.split("Likes what ")[1].split()[0] for message in engine.asked)
    assert asked == dict.fromkeys(test_users(), 21)


async def test_a_model_that_knows_the_targets_is_perfect(data: str):
    targets = {task.target for task in frozen_tasks(data, "chrono-uniform").tasks}
    kinds = {f'"a thing of kind {target[1:]}"' for target in targets}
    knowing = RecordingEngine(lambda message: float(any(kind in message.text for kind in kinds)))
    found = (await ask(data, knowing)).models["mllm"].metrics

    assert found["hr@5"] == 1.0
    assert found["auc"] > 0.9


# --- every model ---------------------------------------------------------------------------------


async def test_all_models_stand_side_by_side_in_their_order(data: str):
    result = await evaluate.run(data, RecordingEngine(lambda message: len(message.text) / 99))

    assert tuple(result.models) == MODELS
    assert result.facts["left_out"] == {}
    for each in result.models.values():
        assert each.scores.shape == (3, 21)


async def test_without_preferences_the_cheap_models_are_evaluated_and_the_others_explained(
    data_without_preferences: str,
):
    result = await evaluate.run(data_without_preferences, None)

    assert tuple(result.models) == MODELS[:-2]
    assert set(result.facts["left_out"]) == {"mllm", "mllm-fusion"}
    assert "msr build-preferences" in result.facts["left_out"]["mllm"]


async def test_the_whole_catalogue_is_ranked_by_the_cheap_models(data: str):
    result = await evaluate.run(data, None, protocol="full", models=["item-knn", "random"])

    knn = result.models["item-knn"]
    assert knn.num_candidates.tolist() == [36, 36, 36]  # of 40 items, without the 4 taken before
    assert (knn.ranks < 36).all()
    assert {"auc", "auc_low", "auc_user", "hr@10", "mrr@10_low"} <= set(knn.metrics)
    # The target and all its 35 rivals, fewer than are sampled.
    assert knn.metrics["auc"] == pytest.approx(knn.metrics["auc_user"], abs=0.15)


async def test_the_multimodal_model_cannot_rank_the_whole_catalogue(data: str):
    with pytest.raises(InputError, match="every item of the catalogue"):
        await ask(data, protocol="full")


async def test_baselines_alone_need_neither_engine_nor_preferences(data_without_preferences: str):
    found = await evaluate.run(data_without_preferences, None, models=["random", "popularity"])

    assert (tuple(found.models), len(found.users)) == (("random", "popularity"), 3)


async def test_another_order_of_users_changes_nothing(data: str, tmp_path):
    other = str(tmp_path / "other")
    write_world(other)
    write_interactions(other, dict(reversed(some_histories().items())))
    cheap = ["random", "popularity", "item-knn", "tf-idf"]

    here, there = [await evaluate.run(d, None, models=cheap) for d in (data, other)]
    assert here.users == there.users
    assert {n: o.metrics for n, o in here.models.items()} == {
        n: o.metrics for n, o in there.models.items()
    }


# --- what is printed -----------------------------------------------------------------------------


async def test_the_json_is_flat_numbers_a_model_and_facts_beside_them(data: str):
    result = await ask(data, models=["popularity", "mllm"])
    values = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))

    names = ["auc", "auc_user"] + [f"{m}@{k}" for k in (3, 5, 10) for m in ("hr", "mrr", "ndcg")]
    expected = {f"{name}{end}" for name in names for end in ("", "_low", "_high")}
    assert set(values["popularity"]) == set(values["mllm"]) == expected
    assert (values["protocol"], values["users"], values["candidates"]) == ("chrono-uniform", 3, 21)
    assert values["ablate"] is None
    assert values["comparisons"]["mllm"]["baseline"] == "popularity"
    assert set(values["comparisons"]) == {"mllm"}  # popularity has no baseline but itself
    assert {"negatives", "calibration", "left_out", "seconds", "versions"} <= set(values)


async def test_probabilities_are_the_calibrated_ones(data: str):
    engine = RecordingEngine(lambda message: 2.0, slope=0.5)
    result = await ask(data, engine)

    mllm = result.models["mllm"]
    assert mllm.raw_probabilities[0, 0] == pytest.approx(0.8808, abs=1e-4)
    assert mllm.probabilities[0, 0] == pytest.approx(0.7311, abs=1e-4)
    told = result.calibration["mllm"]
    assert told["ece_before"] == pytest.approx(0.8808 - 1 / 21, abs=1e-4)
    assert told["ece_after"] == pytest.approx(0.7311 - 1 / 21, abs=1e-4)


async def test_calibration_is_judged_at_the_share_of_targets_that_it_was_fitted_at(data: str):
    result = await ask(data, RecordingEngine(lambda message: 2.0, prior=1 / 5))

    assert result.calibration["mllm"]["ece_before"] == pytest.approx(0.8808 - 1 / 5, abs=1e-4)


# --- whom, and again -----------------------------------------------------------------------------


async def test_only_users_with_a_preference_are_evaluated(tmp_path):
    write_world(str(tmp_path), users=test_users()[:2])
    result = await ask(str(tmp_path))

    assert len(result.users) == 2
    assert result.facts["users_without_preference"] == 1


async def test_if_no_test_user_has_a_preference_the_cheap_models_are_evaluated(tmp_path):
    write_world(str(tmp_path), users=[u for u in some_histories() if u not in test_users()])
    result = await evaluate.run(str(tmp_path), RecordingEngine())

    assert "sasrec" in result.models
    assert "is a test user" in result.facts["left_out"]["mllm"]


async def test_shortened_prompts_are_counted_again_by_a_rerun(data: str):
    class Shortening(RecordingEngine):
        async def score(self, messages):
            self.num_shortened += 1
            return await super().score(messages)

    assert (await ask(data, Shortening())).facts["shortened"] == 63
    assert (await ask(data, Shortening())).facts["shortened"] == 63


async def test_a_rerun_asks_nothing_again_and_gives_the_same_numbers(data: str):
    first = await ask(data, RecordingEngine(lambda message: len(message.text) / 100))
    silent = RecordingEngine()
    second = await ask(data, silent)

    assert silent.asked == []
    assert first.models["mllm"].metrics == second.models["mllm"].metrics


async def test_a_killed_run_goes_on_behind_its_last_whole_shard(data: str):
    with pytest.raises(EngineUnavailable):
        await ask(data, RecordingEngine(fail_after=43), users_per_shard=1)
    rest = RecordingEngine()
    await ask(data, rest, users_per_shard=1)

    assert len(rest.asked) == 21


async def test_another_adapter_is_scored_anew(data: str):
    await ask(data, RecordingEngine(adapter="a1"))
    engine = RecordingEngine(adapter="a2")
    await ask(data, engine)

    assert len(engine.asked) == 63


# --- ablations -----------------------------------------------------------------------------------


async def test_blank_covers_replace_every_cover_and_leave_text_only_items_alone(data: str):
    seeing, blind = RecordingEngine(), RecordingEngine()
    await ask(data, seeing)
    result = await ask(data, blind, ablate="cover")

    assert result.ablate == "cover"
    shown = [message.image and message.image.data for message in blind.asked]
    assert set(shown) == {None, blank_image(56)}
    assert [m.text for m in blind.asked] == [m.text for m in seeing.asked]
    assert {m.image and m.image.data for m in seeing.asked} >= {a_cover("green"), None}


async def test_without_a_preference_no_prompt_says_one(data: str):
    engine = RecordingEngine()
    await ask(data, engine, ablate="preference")

    assert len(engine.asked) == 63
    assert not [message for message in engine.asked if "Likes what" in message.text]


async def test_another_users_preference_is_nobodys_own(data: str):
    engine = RecordingEngine()
    await ask(data, engine, ablate="user")

    tasks = frozen_tasks(data, "chrono-uniform").tasks
    for row, task in enumerate(tasks):
        asked = engine.asked[21 * row : 21 * (row + 1)]
        assert not [message for message in asked if f"Likes what {task.user_id} " in message.text]
    assert len({message.text.split("Likes what ")[1] for message in engine.asked}) == 3


async def test_direct_preferences_are_those_of_their_own_artifact(data: str):
    ends = {user: history[-3:-1] for user, history in some_histories().items()}
    write_preferences(data, ends, name="preferences-direct", variant="direct")
    await ask(data, RecordingEngine(), ablate="direct")

    inputs = Artifact(data, "scores-chrono-uniform-adapter-ablate-direct").manifest().inputs
    assert "preferences-direct" in inputs


async def test_direct_preferences_that_were_not_written_are_asked_for(data: str):
    with pytest.raises(ArtifactMissing, match="build-preferences --direct"):
        await evaluate.run(data, RecordingEngine(), ablate="direct")


async def test_another_users_preference_needs_a_second_user(tmp_path):
    write_world(str(tmp_path), users=test_users()[:1])

    with pytest.raises(InputError, match="at least two"):
        await ask(str(tmp_path), ablate="user")


async def test_an_ablation_without_the_multimodal_model_is_refused(data: str):
    with pytest.raises(InputError, match="add `mllm` to --models"):
        await ask(data, models=["popularity"], ablate="cover")


async def test_an_unknown_ablation_is_refused(data: str):
    with pytest.raises(InputError, match="'covers'; choose from cover, preference"):
        await ask(data, ablate="covers")


async def test_variants_keep_their_scores_apart(data: str):
    for ablate in (None, "cover", "user", "preference"):
        await ask(data, ablate=ablate)
    await ask(data, RecordingEngine(adapter=""))

    endings = ["base", *(f"adapter{end}" for end in ("", "-ablate-cover", "-ablate-user"))]
    for variant in (*endings, "adapter-ablate-preference"):
        assert Artifact(data, f"scores-chrono-uniform-{variant}").exists()


# --- bad input -----------------------------------------------------------------------------------


async def test_a_score_that_is_no_number_ends_the_evaluation(data: str):
    with pytest.raises(AnswerTokenMissing):
        await ask(data, RecordingEngine(lambda message: float("nan")))


async def test_preferences_that_saw_the_target_are_refused(data: str):
    write_preferences(data, some_histories(), cut="none")

    with pytest.raises(TargetLeak):
        await ask(data)


async def test_the_paper_protocol_takes_no_preferences_of_the_other_cut(data: str):
    with pytest.raises(ArtifactMissing, match="--cut popular"):
        await ask(data, protocol="paper")


async def test_the_paper_protocol_takes_preferences_of_its_own_cut(data: str):
    # With five items a user the last of the six most popular ones is simply the last.
    covered = {user: history[:-1] for user, history in some_histories().items()}
    write_preferences(data, covered, name="preferences-popular", cut="popular")
    engine = RecordingEngine()
    result = await ask(data, engine, protocol="paper")

    assert (result.protocol, len(engine.asked)) == ("paper", 63)


async def test_preferences_of_training_users_alone_are_refused(tmp_path):
    write_world(str(tmp_path), users=[u for u in some_histories() if u not in test_users()])

    with pytest.raises(EmptyDataset, match="is a test user"):
        await ask(str(tmp_path))


@pytest.mark.parametrize("models", [["bert4rec"], []])
async def test_models_that_do_not_exist_are_refused_with_those_that_do(data: str, models):
    with pytest.raises(InputError, match="choose from random, popularity"):
        await ask(data, models=models)


async def test_the_engine_is_required_for_its_model(data: str):
    with pytest.raises(InputError, match="needs an engine"):
        await evaluate.run(data, None, models=["mllm"])


@pytest.fixture
def data_without_preferences(data: str) -> str:
    shutil.rmtree(f"{data}/preferences")
    return data
