"""What tests of stages after SFT share: an adapter to start from, rows of examples, a run of two
steps, and what holds for each: a run that was killed ends as another does.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from model_training.data import build_examples
from model_training.data.build_examples import SCHEMA
from model_training.demo.checkpoint import load_checkpoint
from model_training.finetune.config import TrainConfig
from model_training.finetune.run_plan import RunPlan, plan_run
from model_training.finetune.stages import find_stage
from model_training.finetune.trainer import fit
from services.engines.adapter_manifest import MANIFEST
from services.engines.checkpoints import fingerprint_checkpoint
from tests.engines.conftest import a_manifest

_KINDS = {"p": "positive", "q": "positive", "e": "uniform", "h": "hard"}


def some_rows(items: Mapping[str, str]) -> pa.Table:
    """Examples of the items of each user, e.g. "p e1 h1"; the first letter says the kind."""
    rows = [
        {
            "user_id": user_id,
            "item_id": item_id,
            "preference": f"Likes what {user_id} likes.",
            "label": _KINDS[item_id[0]] == "positive",
            "split": "train",
            "kind": _KINDS[item_id[0]],
        }
        for user_id, item_ids in items.items()
        for item_id in item_ids.split()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def start_adapter(base: str, folder: Path) -> str:
    """An adapter on this base that answers otherwise than the base does, with its manifest."""
    model, _ = load_checkpoint(Path(base))
    torch.manual_seed(1)
    targets = r".*\blanguage_model\..*\.(q_proj|v_proj|down_proj)"
    lora = LoraConfig(r=4, target_modules=targets, lora_dropout=0.1, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    manifest = a_manifest(
        model=fingerprint_checkpoint(base), weights=fingerprint_checkpoint(folder)
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return str(folder)


def stage_config(base: Path, **values: Any) -> TrainConfig:
    """Two steps with a checkpoint after each."""
    return TrainConfig(
        base_model=str(base),
        max_steps=2,
        gradient_checkpointing=False,
        precision="float32",
        checkpoint_steps=1,
        log_steps=1,
        learning_rate=1e-2,
        schedule="constant",
        **values,
    )


def stage_plan(data: str, config: TrainConfig, stage: str, folder: Path) -> RunPlan:
    """A run over all examples of the data, from an adapter that is put into the folder."""
    build_examples.run(data, num_negatives=config.num_negatives)
    adapter = start_adapter(config.base_model, folder)
    return plan_run(data, config, config.base_model, find_stage(stage), adapter)


def require_same_weights_after_a_kill(plan: RunPlan, folder: Path) -> None:
    """Train, and again from the first of the two checkpoints: the weights must be the same."""
    fit(plan, folder / "scratch", folder / "whole")
    shutil.rmtree(folder / "scratch" / "checkpoint-2")
    fit(plan, folder / "scratch", folder / "resumed")

    weights = "adapter_model.safetensors"
    whole, resumed = (load_file(folder / run / weights) for run in ("whole", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
