"""The fusions of an evaluation: which one ranks, what it never replaces, when there is none."""

import pytest

from model_training.evaluation import evaluate
from model_training.evaluation.results import MODELS
from model_training.rankers import fit_ranker
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMissing, EmptyDataset
from services.core.splits import split_users
from tests.artifact_builders import write_interactions
from tests.model_training.builders import some_histories, write_preferences, write_world
from tests.model_training.evaluation.evaluating import RecordingEngine, ask, test_users


@pytest.mark.parametrize("engine", [None, RecordingEngine(adapter=""), RecordingEngine()])
async def test_the_fusion_that_serves_is_not_replaced_by_an_evaluation(data: str, engine):
    await fit_ranker.ensure(data, RecordingEngine(adapter="a0"))
    before = Artifact(data, "ranker").manifest()
    await evaluate.run(data, engine, models=["fusion"] if engine is None else None)

    assert Artifact(data, "ranker").manifest() == before


async def test_an_evaluation_ranks_by_the_fusion_that_serves_if_it_is_of_the_same_engine(data: str):
    await fit_ranker.ensure(data, RecordingEngine())
    result = await evaluate.run(data, RecordingEngine())

    served = Artifact(data, "ranker").manifest().fingerprint
    assert result.facts["fingerprints"]["ranker"] == served
    assert not Artifact(data, "ranker-chrono-uniform").exists()


async def test_fusion_with_margins_is_left_out_if_no_validation_user_has_a_preference(tmp_path):
    write_world(str(tmp_path), users=test_users())
    result = await evaluate.run(str(tmp_path), RecordingEngine())

    assert "mllm" in result.models
    assert "does not weigh the model's margin" in result.facts["left_out"]["mllm-fusion"]


def few_histories() -> dict[str, list[str]]:
    """Training and test users alone: of five users none is for validation."""
    histories = dict(list(some_histories().items())[:5])
    assert set(split_users(list(histories)).values()) == {"train", "test"}
    return histories


async def test_preferences_of_test_users_alone_are_too_few_for_fusion_and_said_so_first(tmp_path):
    write_world(str(tmp_path), users=test_users())
    engine = RecordingEngine()
    with pytest.raises(ArtifactMissing, match="preferences of fewer than 2 validation users"):
        await ask(str(tmp_path), engine, models=["mllm-fusion"])

    assert engine.asked == []


@pytest.fixture
def without_validation(tmp_path) -> str:
    write_world(str(tmp_path))
    write_interactions(str(tmp_path), few_histories())
    covered = {user: history[:-1] for user, history in few_histories().items()}
    write_preferences(str(tmp_path), covered)
    return str(tmp_path)


async def test_without_validation_users_everything_but_fusion_is_evaluated(without_validation: str):
    result = await evaluate.run(without_validation, RecordingEngine())

    assert tuple(result.models) == tuple(name for name in MODELS if "fusion" not in name)
    assert "validation" in result.facts["left_out"]["mllm-fusion"]


async def test_fusion_without_validation_users_is_refused_before_the_model_is_asked(
    without_validation: str,
):
    engine = RecordingEngine()
    with pytest.raises(EmptyDataset, match="validation"):
        await ask(without_validation, engine, models=["mllm", "mllm-fusion"])

    assert engine.asked == []
