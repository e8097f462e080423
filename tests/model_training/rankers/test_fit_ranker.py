"""The weights of fusion: learned from validation users, compared honestly, refused where wrong."""

from pathlib import Path

import numpy as np
import pytest

from model_training.rankers import fit_ranker, fit_retrieval
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EmptyDataset, EngineUnavailable, InputError
from services.core.scoring import AnswerLogprobs
from services.core.splits import split_users
from services.engines.contract import EngineIdentity
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.features import FEATURES, MARGIN
from services.retrieval.fusion import Ranker
from tests.artifact_builders import write_interactions
from tests.model_training.builders import (
    frozen_tasks,
    some_histories,
    write_preferences,
    write_world,
)


class MarginEngine:
    """Gives the same margin to every prompt, but `right` to those with a target's title."""

    num_shortened = 0

    def __init__(self, data: str, right: float = 0.0, *, adapter: str = "a1") -> None:
        self.identity = EngineIdentity(model="m1", adapter=adapter)
        self.num_asked = 0
        tasks = frozen_tasks(data, "chrono-uniform", split="validation").tasks
        self._targets = {(task.user_id, f'"a thing of kind {task.target[1:]}"') for task in tasks}
        self._right = right

    async def score(self, messages):
        self.num_asked += 1
        text = messages[0].text
        hit = any(f"what {user} likes" in text and title in text for user, title in self._targets)
        return AnswerLogprobs(yes=self._right if hit else 0.0, no=0.0)


@pytest.fixture
def fitted(data: str) -> str:
    """A data folder with cheap rankers, hardly trained."""
    fit_retrieval.run(data, epochs=1)
    return data


def some_values(num_users: int = 60) -> np.ndarray:
    """Two features (U, 5, 2): the first is higher for targets, the second is noise."""
    values = np.random.default_rng(7).normal(size=(num_users, 5, 2))
    values[:, 0, 0] += 2.0
    return values


def test_the_weights_follow_what_tells_targets_apart():
    fusion = fit_ranker.fit(some_values(), ("telling", "noise"))

    assert fusion.coefficients[0] > 1.0
    assert abs(fusion.coefficients[1]) < 0.3


def test_a_logit_does_not_depend_on_the_scale_of_a_feature():
    scaled = some_values() * [1000.0, 1.0] + [5.0, 0.0]
    plain = fit_ranker.fit(some_values(), ("telling", "noise")).logits(some_values()[3])

    assert fit_ranker.fit(scaled, ("telling", "noise")).logits(scaled[3]) == pytest.approx(plain)


def test_a_feature_that_is_always_the_same_gets_no_weight():
    values = some_values()
    values[:, :, 1] = 0.3

    fusion = fit_ranker.fit(values, ("telling", "constant"))

    assert fusion.coefficients[1] == pytest.approx(0.0, abs=1e-9)


async def test_without_an_engine_the_cheap_features_alone_are_weighed(fitted: str):
    told = await fit_ranker.run(fitted)

    assert set(told["coefficients"]["fusion"]) == set(FEATURES)
    assert (told["margin"], told["users_with_margins"]) == ("no model", 0)
    assert Ranker.load(fitted).with_margin is None


async def test_fusion_stands_beside_every_feature_on_the_same_validation_users(fitted: str):
    told = await fit_ranker.run(fitted)

    assert list(told["validation"]) == ["fusion", *FEATURES]
    assert set(told["validation"]["titles"]) == {"auc", "hr@5", "mrr@5"}
    assert told["users"] == len(frozen_tasks(fitted, "chrono-uniform", split="validation").tasks)


async def test_a_margin_that_knows_the_target_is_weighed_most(fitted: str):
    told = await fit_ranker.run(fitted, MarginEngine(fitted, right=3.0))

    weights = told["coefficients"]["mllm-fusion"]
    assert max(weights, key=weights.get) == MARGIN
    assert told["validation"]["mllm-fusion"]["auc"] == 1.0
    ranker = Ranker.load(fitted)
    assert (ranker.model, ranker.adapter) == ("m1", "a1")
    assert ranker.with_margin is not None


async def test_without_preferences_the_counts_say_so(fitted: str):
    engine = MarginEngine(fitted)
    write_preferences(fitted, {"u0": some_histories()["u0"][:-1]}, name="preferences")
    told = await fit_ranker.run(fitted, engine)

    assert told["margin"] == "preferences of fewer than 2 validation users"
    assert engine.num_asked == 0


async def test_a_rerun_asks_nothing_and_gives_the_same_weights(fitted: str):
    first = await fit_ranker.run(fitted, MarginEngine(fitted, right=3.0))
    silent = MarginEngine(fitted, right=-3.0)
    again = await fit_ranker.run(fitted, silent)

    assert again == first
    assert silent.num_asked == 0


async def test_another_adapter_is_weighed_anew(fitted: str):
    await fit_ranker.run(fitted, MarginEngine(fitted, adapter="a1"))
    await fit_ranker.run(fitted, MarginEngine(fitted, adapter="a2"))

    assert Ranker.load(fitted).adapter == "a2"


async def test_weights_that_know_margins_are_kept_where_none_are_asked_for(fitted: str):
    await fit_ranker.run(fitted, MarginEngine(fitted, adapter="a1"))
    await fit_ranker.ensure(fitted)

    assert Ranker.load(fitted).with_margin is not None


async def test_weights_of_margins_that_will_not_serve_give_way_to_some_without(fitted: str):
    await fit_ranker.run(fitted, MarginEngine(fitted, adapter="a1"))
    await fit_ranker.ensure(fitted, serving=EngineIdentity(model="m1", adapter="a2"))

    assert Ranker.load(fitted).with_margin is None


async def test_weights_for_rankers_that_were_made_anew_are_learned_anew(fitted: str):
    await fit_ranker.ensure(fitted)
    fit_retrieval.run(fitted, epochs=2)
    await fit_ranker.ensure(fitted)

    Ranker.load(fitted).require_retrieval(CheapRankers.load(fitted).definition)


async def test_each_protocol_has_weights_of_its_own(fitted: str):
    await fit_ranker.run(fitted, protocol="chrono-popularity")

    assert Ranker.load(fitted, "ranker-chrono-popularity").cheap.features == FEATURES
    assert not Artifact(fitted, "ranker").exists()


async def test_the_ranker_fits_the_rankers_it_was_fitted_on(fitted: str):
    await fit_ranker.run(fitted)

    Ranker.load(fitted).require_retrieval(CheapRankers.load(fitted).definition)


async def test_rankers_that_saw_the_targets_are_refused(fitted: str):
    with pytest.raises(ArtifactMismatch, match="--cut popular"):
        await fit_ranker.run(fitted, protocol="paper", retrieval="retrieval")


async def test_an_unknown_protocol_is_refused(fitted: str):
    with pytest.raises(InputError, match="'guess'"):
        await fit_ranker.run(fitted, protocol="guess")


async def test_a_data_set_without_enough_validation_users_is_refused(tmp_path: Path):
    data = str(tmp_path)
    write_world(data)
    histories = some_histories()
    few = {user: histories[user] for user in list(histories)[:9]}
    assert list(split_users(list(few)).values()).count("validation") == 1
    write_interactions(data, few)
    fit_retrieval.run(data, epochs=1)

    with pytest.raises(EmptyDataset, match=r"1 validation user\(s\)"):
        await fit_ranker.run(data)


async def test_an_engine_that_fails_leaves_no_ranker(fitted: str):
    class Gone(MarginEngine):
        async def score(self, messages):
            raise EngineUnavailable("gone")

    with pytest.raises(EngineUnavailable):
        await fit_ranker.run(fitted, Gone(fitted))
    assert not Artifact(fitted, "ranker").exists()


async def test_rankers_of_other_interactions_are_refused(fitted: str):
    # They may have seen what is a target now.
    shorter = {user: history[:-1] for user, history in some_histories().items()}
    write_interactions(fitted, shorter)

    with pytest.raises(ArtifactMismatch, match="run `msr fit-retrieval` again"):
        await fit_ranker.run(fitted)
