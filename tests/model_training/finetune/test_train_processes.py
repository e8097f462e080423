"""Several processes train one adapter: they share the rows, one publishes; files for clusters."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

from model_training.finetune.config import load_config
from model_training.finetune.validation_callback import METRIC
from services.engines.adapter_manifest import read_adapter_manifest
from services.engines.open_engine import open_engine
from tests.engines.conftest import a_prompt
from tests.model_training.finetune.training_builders import logged

CONFIGS = Path(__file__).parents[3] / "model_training" / "configs"


@pytest.fixture
def trained_by_two(data_with_examples: str, checkpoint: Path) -> Path:
    # `accelerate launch` starts processes on GPUs this way, and on CPUs only through MPI.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.model_training.finetune.two_processes"]
    command += [data_with_examples, str(checkpoint)]
    subprocess.run(command, check=True, cwd=CONFIGS.parents[1])
    return Path(data_with_examples)


async def margin(checkpoint: Path, adapter: Path) -> float:
    engine = await open_engine("local", model=str(checkpoint), adapter=str(adapter))
    answer = await engine.score(a_prompt())
    await engine.close()
    return answer.yes - answer.no


@pytest.mark.slow
def test_two_processes_share_the_rows_and_one_publishes_what_is_served(
    trained_by_two: Path, checkpoint: Path
):
    first, second = (json.loads((trained_by_two / f"seen-{n}.json").read_text()) for n in (0, 1))
    results = [json.loads((trained_by_two / f"result-{n}.json").read_text()) for n in (0, 1)]
    adapter = trained_by_two / "adapter"

    assert not set(first["trained_on"]) & set(second["trained_on"])
    assert {*first["trained_on"], *second["trained_on"]} == set(first["all"])
    assert (results[0]["training_rows"], results[1]) == (48, {})
    assert len(list(trained_by_two.glob("training/*"))) == 1
    assert asyncio.run(margin(checkpoint, adapter)) != 0
    best = max(max(values) for values in logged(str(trained_by_two), f"eval/{METRIC}").values())
    assert best == pytest.approx(read_adapter_manifest(adapter).validation["auc"], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("fsdp", DistributedType.FSDP), ("deepspeed", DistributedType.DEEPSPEED)],
)
def test_the_files_for_clusters_are_what_accelerate_reads(name: str, kind: DistributedType):
    config = load_config_from_file(str(CONFIGS / "accelerate" / f"{name}.yaml"))

    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == kind
    assert config.mixed_precision == "bf16"


def test_whole_weights_stand_in_every_checkpoint_of_a_cluster():
    fsdp = load_config_from_file(str(CONFIGS / "accelerate" / "fsdp.yaml"))
    deepspeed = load_config_from_file(str(CONFIGS / "accelerate" / "deepspeed.yaml"))

    assert fsdp.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert deepspeed.deepspeed_config["zero3_save_16bit_model"] is True


@pytest.mark.parametrize(("name", "method"), [("qlora", "qlora"), ("full", "full")])
def test_each_method_has_a_configuration_of_its_own(name: str, method: str):
    assert load_config(CONFIGS / f"{name}.yaml").method == method
