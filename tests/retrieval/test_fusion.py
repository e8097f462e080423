"""The weights of fusion as the API reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from services.core.artifacts import Artifact, Recipe
from services.core.errors import ArtifactMismatch, ArtifactMissing
from services.retrieval.features import FEATURES, MARGIN
from services.retrieval.fusion import Fusion, Ranker

FUSION = Fusion(("a", "b"), (1.0, 0.0), (2.0, 1.0), (3.0, -1.0), intercept=0.5)


def a_row(model: str, features: tuple[str, ...]) -> dict[str, object]:
    ones = [1.0] * len(features)
    return {
        "model": model,
        "features": list(features),
        "means": ones,
        "scales": ones,
        "coefficients": ones,
        "intercept": -1.0,
    }


def write_ranker(data: Path, *rows: dict[str, object]) -> None:
    recipe = Recipe("fit-ranker", {"retrieval": "d1", "adapter": "a1"}, model="m1")
    writer = Artifact(str(data), "ranker").write(recipe)
    writer.write_shard(0, pa.Table.from_pylist(list(rows)))
    writer.finish(1, {})


def test_a_logit_is_the_intercept_and_the_weighted_standardized_values():
    values = np.array([[1.0, 0.0], [3.0, 2.0]])

    assert FUSION.contributions(values).tolist() == [[0.0, 0.0], [3.0, -2.0]]
    assert FUSION.logits(values).tolist() == [0.5, 1.5]


def test_no_candidates_have_no_logits():
    assert FUSION.logits(np.empty((0, 2))).tolist() == []


def test_values_of_another_width_are_refused():
    with pytest.raises(ValueError, match="do not hold the features"):
        FUSION.logits(np.zeros((4, 3)))


def test_a_ranker_is_read_as_it_was_written(tmp_path: Path):
    write_ranker(tmp_path, a_row("fusion", FEATURES), a_row("mllm-fusion", (*FEATURES, MARGIN)))
    ranker = Ranker.load(str(tmp_path))

    assert (ranker.retrieval, ranker.model, ranker.adapter) == ("d1", "m1", "a1")
    assert ranker.cheap.features == FEATURES
    assert ranker.with_margin is not None
    assert ranker.with_margin.intercept == -1.0


def test_a_ranker_that_was_fitted_without_margins_has_none(tmp_path: Path):
    write_ranker(tmp_path, a_row("fusion", FEATURES))

    assert Ranker.load(str(tmp_path)).with_margin is None


def test_weights_of_other_features_are_refused(tmp_path: Path):
    write_ranker(tmp_path, a_row("fusion", ("popularity", "zodiac")))

    with pytest.raises(ArtifactMismatch, match=r"zodiac.*msr fit-ranker"):
        Ranker.load(str(tmp_path))


def test_without_an_artifact_the_step_is_named(tmp_path: Path):
    with pytest.raises(ArtifactMissing, match="msr fit-ranker"):
        Ranker.load(str(tmp_path))


def test_a_ranker_of_another_version_is_refused(tmp_path: Path):
    write_ranker(tmp_path, a_row("mllm-fusion", (*FEATURES, MARGIN)))

    with pytest.raises(ArtifactMismatch, match=r"another version.*msr fit-ranker"):
        Ranker.load(str(tmp_path))
