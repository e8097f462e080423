"""A small checkpoint of each family goes the whole road, to an answer of `POST /recommend`."""

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks.engines import families
from benchmarks.families.checkpoints import FAMILIES
from benchmarks.families.road import prepare_data, travel
from benchmarks.support.msr_process import msr, serving

# LLaVA-NeXT goes it by the GPU guide's own commands (tests/vllm/test_gpu_guide.py);
# `make test-families` runs all.
ON_EVERY_CHANGE = ("qwen-3",)

pytestmark = pytest.mark.families


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(prepare_data(tmp_path_factory.mktemp("families")))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.vllm] if name in ON_EVERY_CHANGE else [])
        for name in FAMILIES
    ],
)
def test_a_family_goes_the_whole_road(name: str, data: str, tmp_path: Path):
    outcome = asyncio.run(travel(name, data, tmp_path))

    assert families.holds({name: outcome.as_dict()}), outcome
    chosen = ("--model", str(tmp_path / "base"), "--adapter", str(tmp_path / "sft"))
    evaluated = msr("evaluate", "--data", data, "--models", "mllm", *chosen).result
    assert 0 <= evaluated["mllm"]["auc"] <= 1
    # The texts are drawn, so that every family has the same: another model's, as the answer says.
    with serving(Path(data), "--no-worker", "--accept-other-texts", *chosen) as url:
        body = {"user_id": "user-0", "k": 3, "mode": "mllm", "timeout_seconds": 60}
        answer = httpx.post(f"{url}/recommend", json=body, timeout=120).raise_for_status().json()
    assert len(answer["items"]) == 3
    assert not answer["degraded"], answer
    assert answer["caveats"] == ["texts-of-another-model"]
