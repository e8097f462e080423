"""What a vLLM server tells of itself, and that it makes the identity of the local engine."""

from dataclasses import replace
from typing import Any

import pytest

from services.core.drift import ScoreHistogram
from services.core.errors import ArtifactMismatch, EngineUnavailable, ModelUnusable
from services.core.scoring import NOT_CALIBRATED, Calibration
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import AS_SERVED, EngineIdentity
from services.engines.vllm_client.model_list import ModelList
from services.engines.weight_labels import labels

AN_ADAPTER = EngineIdentity("m1", "a1", Calibration(slope=1 / 3, intercept=-2.0))
BASE, ADAPTER = str(DEMO_WEIGHTS / "base"), str(DEMO_WEIGHTS / "adapter")


def a_listing(
    names: list[str], *, root: str = "", adapters: dict[str, str] | None = None
) -> dict[str, Any]:
    """As vLLM writes it: every name with the root given at the start, adapters below the first."""
    bases = [{"id": n, "root": root or n, "parent": None, "max_model_len": 4096} for n in names]
    loras = [
        {"id": name, "root": path, "parent": names[0], "max_model_len": None}
        for name, path in (adapters or {}).items()
    ]
    return {"object": "list", "data": bases + loras}


def served(*args: Any, **options: Any) -> ModelList:
    return ModelList("http://a", a_listing(*args, **options))


def test_labels_give_the_identity_that_the_local_engine_has_on_the_folders():
    names = ["demo", *labels(identify(BASE), {"lora": identify(BASE, ADAPTER)})]

    weights = served(names, root="/elsewhere", adapters={"lora": "/far"}).choose("demo", "lora")
    assert weights.identity == identify(BASE, ADAPTER)
    assert (weights.scorer, weights.max_tokens) == ("lora", 4096)


def test_without_labels_the_folders_are_read_where_they_can_be():
    weights = served(["demo"], root=BASE, adapters={"lora": ADAPTER}).choose("demo", "lora")

    assert weights.identity == identify(BASE, ADAPTER)


def test_without_labels_or_folders_the_addresses_stand_for_the_weights():
    weights = served(["demo"], root="org/model", adapters={"lora": "org/lora"})

    assert weights.choose("demo", "lora").identity == EngineIdentity("org/model", "org/lora")


def test_the_calibration_of_the_adapter_in_use_is_reported_to_the_last_bit():
    other = EngineIdentity("m1", "b1", Calibration(9.0, 9.0))
    names = ["demo", *labels(EngineIdentity("m1", ""), {"x": AN_ADAPTER, "y": other})]

    weights = served(names, adapters={"x": "/x", "y": "/y"})
    assert weights.choose("demo", "x").identity == AN_ADAPTER
    assert weights.choose("demo", "y").identity == other
    assert weights.choose("demo", None).identity.calibration == NOT_CALIBRATED


def test_a_calibration_that_cannot_be_read_is_refused():
    names = ["demo", "msr:model:m1", "msr:adapter:x:a1", "msr:calibration:x:steep"]

    with pytest.raises(ModelUnusable, match="the calibration 'steep'"):
        served(names, adapters={"x": "/x"}).choose("demo", "x")


def test_a_description_changes_with_the_calibration_in_use_alone():
    def listing(slope: float, other: float) -> ModelList:
        names = ["demo", *(f"msr:calibration:{k}:0.0:None" for k in (f"x:{slope}", f"y:{other}"))]
        return served(names, adapters={"x": "/x", "y": "/y"})

    weights = listing(1.0, 1.0).choose("demo", "x")
    described = listing(1.0, 1.0).describe(weights)
    assert listing(1.0, 2.0).describe(weights) == described
    assert listing(2.0, 1.0).describe(weights) != described


def test_a_merged_checkpoint_goes_by_the_names_of_base_and_itself():
    merged = EngineIdentity("base-1", "merged-1", Calibration(0.7, -1.25))

    weights = served(["merged", *labels(merged, {})]).choose(AS_SERVED, AS_SERVED)
    assert weights.identity == merged
    assert weights.is_merged


def test_an_adapter_that_lies_here_must_have_been_trained_on_this_base():
    names = ["demo", *labels(EngineIdentity("another-base", ""), {"lora": AN_ADAPTER})]

    with pytest.raises(ArtifactMismatch, match="not on another-base"):
        served(names, adapters={"lora": ADAPTER}).choose("demo", "lora")


def test_an_adapter_of_other_definitions_does_not_matter_to_who_does_not_use_it():
    names = ["demo", "msr:model:m1", "msr:definition:other", "msr:adapter:lora:a1"]
    listing = served(names, adapters={"lora": "/far"})

    assert listing.choose("demo", None).identity == EngineIdentity("m1", "")
    with pytest.raises(ArtifactMismatch, match="other"):
        listing.choose("demo", "lora")


def test_of_several_adapters_one_must_be_named():
    with pytest.raises(ModelUnusable, match=r"\['x', 'y'\]; name the one"):
        served(["demo"], adapters={"x": "/x", "y": "/y"}).choose(AS_SERVED, AS_SERVED)


def test_labels_are_no_models():
    with pytest.raises(ModelUnusable, match=r"serves \['demo'\], not 'msr:model:m1'"):
        served(["demo", "msr:model:m1"]).choose("msr:model:m1", None)


def test_a_description_changes_with_the_weights_in_use_alone():
    names = ["demo", "msr:model:m1", "msr:adapter:x:1"]
    first = served(names, adapters={"x": "/x"})
    weights = first.choose("demo", "x")

    loaded_another = served([*names, "msr:adapter:y:2"], adapters={"x": "/x", "y": "/y"})
    changed = served([*names[:2], "msr:adapter:x:9"], adapters={"x": "/x"})
    assert loaded_another.describe(weights) == first.describe(weights)
    assert changed.describe(weights) != first.describe(weights)


@pytest.mark.parametrize("listing", [None, [], {}, {"data": []}, {"data": [{"id": "x"}]}])
def test_what_is_no_listing_is_reported_with_the_address(listing: Any):
    with pytest.raises(EngineUnavailable, match="http://a/v1/models"):
        ModelList("http://a", listing)


def test_a_server_tells_how_scores_were_spread_over_validation_users():
    spread = ScoreHistogram((0.015, 0.25), (3, 4, 5))
    told = replace(AN_ADAPTER, validation_scores=spread)
    names = ["demo", *labels(EngineIdentity("m1", ""), {"x": told, "y": AN_ADAPTER})]
    listing = served(names, adapters={"x": "/x", "y": "/y"})

    assert listing.choose("demo", "x").identity.validation_scores == spread
    assert listing.choose("demo", "y").identity.validation_scores is None


def test_scores_that_cannot_be_read_are_refused():
    names = ["demo", "msr:model:m1", "msr:adapter:x:a1", "msr:scores:x:high:low"]

    with pytest.raises(ModelUnusable, match="the scores 'high:low'"):
        served(names, adapters={"x": "/x"}).choose("demo", "x")
