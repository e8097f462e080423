"""Trains a stage: loading, arguments, rows, callbacks, resuming, saving.

A run that was killed and resumed ends with the same bytes as an undisturbed one. transformers
restores weights, optimizer, schedule, data order and random numbers. Losses not yet logged are
covered by `LogsWithEveryCheckpoint`, and the count towards an early end by the validation callback.
"""

import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from model_training.finetune import peft_methods
from model_training.finetune.checkpoint_weights import (
    CheckpointWeights,
    write_changed_checkpoint,
)
from model_training.finetune.collation import PromptCollator
from model_training.finetune.config import TrainConfig
from model_training.finetune.distributed import is_main, local_device, num_processes
from model_training.finetune.hostile_titles import UNCHANGED, HostileTitles
from model_training.finetune.margins import answer_logits
from model_training.finetune.run_plan import RunPlan, checkpoints
from model_training.finetune.validation_callback import (
    ValidatesWhileTraining,
    best_checkpoint,
    has_ended,
)
from services.core.errors import ModelUnusable
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId
from services.engines.models.model_files import load_processor

log = structlog.get_logger(__name__)

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"


class PromptRows(ABC):
    """Adds prompts and images to the trainer's rows when they are used; each stage has its own."""

    def __init__(self, items: Mapping[ItemId, Item], titles: HostileTitles = UNCHANGED) -> None:
        """`items` holds every item that a row names."""
        self.items = items
        self.titles = titles

    @classmethod
    def dataset(cls, plan: RunPlan, rows: list[dict[str, Any]]) -> Dataset:
        """These rows for a trainer, with the titles of the run's prompts."""
        return Dataset.from_list(rows).with_transform(cls(plan.items, hostile_titles(plan)))

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """From the columns of some rows to those of the completed rows."""
        rows = [
            self.complete(**dict(zip(columns, values, strict=True)))
            for values in zip(*columns.values(), strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    @abstractmethod
    def complete(self, *args: Any, **row: Any) -> dict[str, Any]:
        """What the stage's collator reads of a row."""

    def prompt(self, item_id: ItemId, preference: str) -> Messages:
        """The scoring prompt, with the title that the item has in training."""
        return scoring_messages(preference, self.titles.in_prompt(self.items[item_id], preference))


def hostile_titles(plan: RunPlan) -> HostileTitles:
    """The titles of the run's prompts."""
    preferences = sorted(set(plan.rows["preference"].to_pylist()))
    return HostileTitles(plan.config.hostile_titles, preferences, plan.config.seed)


# --- trainers and callbacks ----------------------------------------------------------------------


class NonFiniteLossGuard(Trainer):  # type: ignore[misc]  # transformers is untyped
    """A mixin of the stages' trainers that checks every loss before its gradient is used."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """ModelUnusable if the loss of a batch is not a finite number."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise _not_finite("loss", float(loss.mean()), self.state.global_step + 1, self.args)
        return loss


class MarginTrainer(NonFiniteLossGuard):
    """transformers' trainer with a loss over the margins of prompts.

    The rows have `prompts`, and `labels` names their other columns (see `PromptCollator`). `loss`
    takes the margins (B,) and the labels, by name.
    """

    def __init__(
        self,
        plan: RunPlan,
        model: Any,
        processor: Any,
        scratch: Path,
        *,
        rows: Dataset,
        loss: Callable[..., torch.Tensor],
        labels: Sequence[str] = (),
    ) -> None:
        """Checkpoints and logs go to `scratch`."""
        arguments = trainer_arguments(plan.config, scratch)
        super().__init__(
            model=model,
            args=TrainingArguments(**arguments, label_names=list(labels)),
            data_collator=PromptCollator(processor),
            train_dataset=rows,
            processing_class=processor,
        )
        self._loss = loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch; with its margins (B,) if asked for."""
        labels = {name: inputs[name] for name in self.label_names}
        prompts = {name: values for name, values in inputs.items() if name not in labels}
        yes, no = answer_logits(model, prompts, self.data_collator.answers).unbind(dim=1)
        loss = self._loss(yes - no, **labels)
        return (loss, {"margins": yes - no}) if return_outputs else loss


class ProgressOnStderr(ProgressCallback):  # type: ignore[misc]
    """transformers' progress bar without lines on stdout; raises for a loss that is not finite."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the loss; ModelUnusable if it or the gradient is not a finite number."""
        logs = logs or {}
        # In float16 a gradient may overflow; its scaler then skips the step.
        watched = ("loss",) if args.fp16 else ("loss", "grad_norm")
        for name in watched:
            if name in logs and not math.isfinite(logs[name]):
                raise _not_finite(name, logs[name], state.global_step, args)
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")


class LogsWithEveryCheckpoint(TrainerCallback):  # type: ignore[misc]
    """Logs the loss before a checkpoint is written, since checkpoints do not hold it.

    The log also checks the gradient, so no checkpoint follows one that is not finite.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a log with every checkpoint."""
        control.should_log = control.should_log or control.should_save


def _not_finite(name: str, value: float, step: int, arguments: Any) -> ModelUnusable:
    found = checkpoints(Path(arguments.output_dir))
    kept = f"the checkpoint of step {found[-1].name.rpartition('-')[2]} is kept" if found else ""
    return ModelUnusable(
        f"the {name} is {value} at step {step}; training stopped and nothing was published"
        f"{'; ' + kept if kept else ''}; lower learning_rate, raise warmup_fraction, or train in "
        "float32"
    )


# --- before --------------------------------------------------------------------------------------


def load_model(plan: RunPlan) -> tuple[Any, Any]:
    """The base model, with the start adapter ready for training if there is one, and its processor.

    For method `full` only the language model is trained. Raises ModelUnusable if a checkpoint
    cannot be loaded.
    """
    config = plan.config
    processor = load_processor(plan.model)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            plan.model, **peft_methods.loading(config, plan.model, device=local_device())
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelUnusable(
            f"cannot load the base model {plan.model!r} ({error}); name a checkpoint folder or a "
            "hub name that this machine can reach with --model or base_model"
        ) from error
    peft_methods.name_shardable_layers(model)
    if config.method == "full":
        peft_methods.freeze_all_but_language_model(model)
    elif plan.start_adapter is None:
        peft_methods.require_layers(model, config)
    else:
        model = _with_start_adapter(model, plan.start_adapter)
    return model, processor


def _with_start_adapter(model: Any, folder: str) -> Any:
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnusable(
            f"cannot load the adapter to start from, {folder} ({error}); name one that `msr train` "
            "wrote for this base model with --start-adapter"
        ) from error


def trainer_arguments(config: TrainConfig, scratch: Path) -> dict[str, Any]:
    """The arguments for transformers' TrainingArguments, or TRL's, from a configuration."""
    return {
        "output_dir": str(scratch),
        "num_train_epochs": config.num_epochs,
        "max_steps": config.max_steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "gradient_checkpointing": config.gradient_checkpointing,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_fraction,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_gradient_norm,
        "bf16": config.precision == "bfloat16",
        "fp16": config.precision == "float16",
        "use_cpu": not torch.cuda.is_available(),
        "seed": config.seed,
        "data_seed": config.seed,
        "dataloader_num_workers": config.num_workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,  # the columns are added when a row is used
        "logging_steps": config.log_steps,
        "logging_nan_inf_filter": False,
        "save_steps": config.checkpoint_steps,
        "save_total_limit": config.num_checkpoints,
        "report_to": list(config.trackers),
        "run_name": scratch.name,
    }


def add_callbacks(trainer: Any, plan: RunPlan) -> None:
    """Add the callbacks of every stage: progress, checks, validation and early stopping."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    if plan.config.evaluate_steps:
        # Its own processor, since a trainer may change its one.
        collate = PromptCollator(load_processor(plan.model))
        trainer.add_callback(ValidatesWhileTraining(trainer, collate, plan))
    trainer.add_callback(LogsWithEveryCheckpoint())
    trainer.add_callback(ProgressOnStderr())
    for callback in plan.callbacks:
        trainer.add_callback(callback)


# --- the run -------------------------------------------------------------------------------------


def fit(plan: RunPlan, scratch: Path, trained: Path) -> None:
    """Train the plan's stage with checkpoints in `scratch`, from the last one if there is one.

    The adapter's files (for method `full` the model's) appear in `trained` whole: those of the best
    checkpoint by validation during training, without one of the last. Raises what the stage's check
    raises, and ModelUnusable if the model cannot be loaded or a loss is not finite.
    """
    plan.stage.check(plan)
    model, processor = load_model(plan)
    trainer = plan.stage.build_trainer(plan, model, processor, scratch)
    add_callbacks(trainer, plan)
    found = checkpoints(scratch)
    if is_main():
        log.info(
            "training_started",
            stage=plan.stage.name,
            rows=plan.rows.num_rows,
            rows_per_step=rows_per_step(plan.config),
            resumed=found[-1].name if found else "",
        )
    if not (found and has_ended(found[-1], plan.config.patience)):
        trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    if not is_main():
        return
    best = best_checkpoint(checkpoints(scratch))
    saving = scratch / "saving"
    shutil.rmtree(saving, ignore_errors=True)
    saving.mkdir()
    if plan.config.method == "full":
        _save_model(plan, best, saving)
    else:
        _save_adapter(plan, best, saving)
    log.info("training_ended", published=best.name)
    saving.rename(trained)


def rows_per_step(config: TrainConfig) -> int:
    """The rows of an optimizer step, over all processes."""
    return config.batch_size * config.gradient_accumulation * num_processes()


def _save_adapter(plan: RunPlan, checkpoint: Path, folder: Path) -> None:
    shutil.copyfile(checkpoint / _ADAPTER_WEIGHTS, folder / _ADAPTER_WEIGHTS)
    config = json.loads((checkpoint / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = plan.model_name  # publish no local path
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / _ADAPTER_CONFIG).write_text(text, encoding="utf-8")


def _save_model(plan: RunPlan, checkpoint: Path, folder: Path) -> None:
    """A checkpoint as `msr merge-adapter` writes it, under the base's names."""
    dtype = torch.float32 if plan.config.precision == "float32" else torch.bfloat16
    trained = CheckpointWeights(checkpoint)
    write_changed_checkpoint(plan.model, folder, dtype=dtype, change=lambda name, _: trained[name])
