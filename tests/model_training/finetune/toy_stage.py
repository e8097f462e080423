"""A stage of a test: stage sft with an option that scales its learning rate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.stages import sft


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> Any:
    learning_rate = plan.config.learning_rate * plan.options["learning_rate_factor"]
    config = replace(plan.config, learning_rate=learning_rate)
    return sft.build_trainer(replace(plan, config=config), model, processor, scratch)


STAGE = Stage(
    "toy",
    "adapter-toy",
    build_trainer,
    starts_from_adapter=False,
    options={"learning_rate_factor": 1.0},
)
