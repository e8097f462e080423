"""The stages of training. A new one is a module with a `STAGE` and a line in STAGES."""

from importlib import import_module
from typing import TYPE_CHECKING

from services.core.errors import InputError

if TYPE_CHECKING:
    from model_training.finetune.run_plan import Stage

# A stage's module is imported when it is used, so that a command line lists them without torch.
STAGES = {
    "sft": "model_training.finetune.stages.sft",
    "dpo": "model_training.finetune.stages.dpo",
    "rank": "model_training.finetune.stages.listwise",
    "harden": "model_training.finetune.stages.harden",
}


def find_stage(name: str) -> "Stage":
    """The stage of that name; InputError names the known ones."""
    if name not in STAGES:
        raise InputError(f"there is no stage {name!r}; choose from {', '.join(STAGES)}")
    stage: Stage = import_module(STAGES[name]).STAGE
    return stage
