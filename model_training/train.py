"""Step 5, `msr train`: fine-tune a LoRA adapter that answers Yes or No (MLLM-MSR, section 3.3).

Reads `examples` and `items`; writes an adapter folder: PEFT's files and `manifest.json`. The
language model alone is adapted, on the answer tokens alone. Prompts come from `core/prompts.py` and
the model's own template, as in serving. A killed run resumes from its last checkpoint; a finished
one is not repeated. TensorBoard logs lie in `training/FINGERPRINT/runs` of the data folder.
"""

import asyncio
import gc
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog
import torch
from datasets import Dataset
from peft import LoraConfig
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from model_training import metrics
from model_training.collation import AnswerCollator, training_row
from model_training.config import TrainConfig
from model_training.inputs import read_items, require_same_inputs
from model_training.score_groups import ScoringGroup, score_groups
from services.core.artifacts import Artifact, Manifest, fingerprint
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError, ModelUnusable
from services.core.prompts import SCORING_FINGERPRINT, scoring_messages
from services.core.records import Item, ItemId, UserId
from services.engines.adapters import (
    MANIFEST,
    AdapterManifest,
    current_definition,
    read_adapter_manifest,
)
from services.engines.checkpoints import identify_model
from services.engines.contract import Engine
from services.engines.local import LocalEngine
from services.engines.rendering import answer_tokens

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Work:
    """A training run before it starts: everything refused by now has been refused."""

    config: TrainConfig
    model: str
    model_fingerprint: str
    rows: pa.Table
    validation: pa.Table
    items: Mapping[ItemId, Item]
    image_size: int
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Names the run: the same base, data, definitions and configuration."""
        return fingerprint(
            {
                "step": "train",
                "definition": current_definition(),
                "model": self.model_fingerprint,
                "inputs": dict(self.inputs),
                "config": self.recorded_config,
            }
        )

    @property
    def model_name(self) -> str:
        """The base model's hub name, or its folder's name: no path of this machine is recorded."""
        return Path(self.model).name if Path(self.model).is_dir() else self.model

    @property
    def recorded_config(self) -> dict[str, Any]:
        return {**self.config.as_dict(), "base_model": self.model_name}


def run(
    data: str, config: TrainConfig, *, output: str | None = None, model: str | None = None
) -> dict[str, Any]:
    """Train and save the adapter to `output` (default: `adapter` in the data folder).

    `model` replaces the configuration's base model. Returns the manifest's counts and validation
    metrics. Raises ArtifactMismatch if examples and code disagree, ModelUnusable if the base cannot
    be loaded or the loss is not finite, EmptyDataset without training or validation rows.
    """
    if output is None and "://" in data:
        raise InputError(f"training writes local files, {data} is none; give --output a folder")
    folder = Path(output) if output is not None else Path(data) / "adapter"
    work = prepare(data, config, model or config.base_model)
    if (folder / MANIFEST).exists():
        finished = read_adapter_manifest(folder)
        if finished.fingerprint == work.fingerprint:
            log.info("training_found_finished", adapter=str(folder))
            return {**finished.counts, **finished.validation}

    scratch = scratch_folder(work, folder.parent if "://" in data else Path(data))
    scratch.mkdir(parents=True, exist_ok=True)
    trained = scratch / "adapter"
    if not trained.exists():  # else a run was killed while it validated
        _fit(work, scratch, trained)
        gc.collect()  # the trainer's cycles hold its model; validation loads another
        torch.cuda.empty_cache()
    manifest = _validate(work, trained)
    (trained / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _publish(trained, folder)
    for leftover in (trained, *_checkpoints(scratch)):
        shutil.rmtree(leftover)
    log.info("adapter_trained", adapter=str(folder), **manifest.counts, **manifest.validation)
    return {**manifest.counts, **manifest.validation}


def scratch_folder(work: Work, root: Path) -> Path:
    """Where the checkpoints and logs of a run lie, under the data folder."""
    return root / "training" / work.fingerprint


def _publish(trained: Path, folder: Path) -> None:
    """Put a whole adapter in place of an earlier one; `folder` may be on another disk."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(trained, unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


# --- before hours are spent ----------------------------------------------------------------------


def prepare(data: str, config: TrainConfig, model: str) -> Work:
    """Read and check everything that a run needs; the errors are those of `run`."""
    examples = Artifact(data, "examples")
    manifest = examples.manifest()
    require_same_inputs(data, manifest)
    _require_current_examples(manifest, config)
    table = examples.read()
    rows = _take_negatives(table.filter(pc.equal(table["split"], "train")), config.num_negatives)
    validation = table.filter(pc.equal(table["split"], "validation"))
    for name, part in (("training", rows), ("validation", validation)):
        if len(set(part["label"].to_pylist())) < 2:
            raise EmptyDataset(
                f"the {name} examples lack positives or negatives ({part.num_rows} rows); build "
                "preferences for more users"
            )
    validation = _first_users(validation, config.max_validation_users)
    used = {*rows["item_id"].to_pylist(), *validation["item_id"].to_pylist()}
    return Work(
        config=config,
        model=model,
        model_fingerprint=identify_model(model),
        rows=rows,
        validation=validation,
        items=read_items(data, used),
        image_size=Artifact(data, "items").manifest().definition["image_size"],
        inputs={"examples": manifest.fingerprint, **manifest.inputs},
    )


def _require_current_examples(manifest: Manifest, config: TrainConfig) -> None:
    if manifest.definition["prompt"] != SCORING_FINGERPRINT:
        raise ArtifactMismatch(
            f"the examples were built for scoring prompt {manifest.definition['prompt']}, this "
            f"version has {SCORING_FINGERPRINT}; run `msr build-examples` again"
        )
    if config.num_negatives > manifest.definition["num_negatives"]:
        raise ArtifactMismatch(
            f"the configuration wants {config.num_negatives} negatives a positive, the examples "
            f"have {manifest.definition['num_negatives']}; run `msr build-examples "
            f"--negatives {config.num_negatives}`"
        )


def _take_negatives(table: pa.Table, num_negatives: int) -> pa.Table:
    """The positives and the first `num_negatives` negatives of every user."""
    keep, seen = [], 0
    for label in table["label"].to_pylist():  # within a user the positive comes first
        seen = 0 if label else seen + 1
        keep.append(seen <= num_negatives)
    return table.filter(pa.array(keep, pa.bool_()))


def _first_users(table: pa.Table, num_users: int) -> pa.Table:
    users = list(dict.fromkeys(table["user_id"].to_pylist()))[:num_users]
    return table.filter(pc.is_in(table["user_id"], pa.array(users, pa.string())))


def _unusable(model: str, error: Exception) -> ModelUnusable:
    return ModelUnusable(
        f"cannot load the base model {model!r} ({error}); name a checkpoint folder or a hub name "
        "that this machine can reach with --model or base_model"
    )


# --- fine-tuning ---------------------------------------------------------------------------------


class RowsWithPictures:
    """Gives the trainer's rows their prompts and pictures, when they are used."""

    def __init__(self, items: Mapping[ItemId, Item]) -> None:
        """`items` holds every item that a row names."""
        self._items = items

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """From columns `item_id`, `preference`, `label` to `images`, `prompt`, `completion`."""
        rows = [
            training_row(scoring_messages(preference, self._items[item_id]), label=label)
            for item_id, preference, label in zip(
                columns["item_id"], columns["preference"], columns["label"], strict=True
            )
        ]
        return {name: [row[name] for row in rows] for name in ("images", "prompt", "completion")}


class ProgressOnStderr(ProgressCallback):  # type: ignore[misc]  # transformers is untyped
    """transformers' progress bar, without its lines on stdout; ends a run whose loss is broken."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the loss; ModelUnusable if it is not a finite number."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not np.isfinite(loss):
            raise ModelUnusable(
                f"the loss is {loss} at step {state.global_step}; lower learning_rate or train in "
                "float32"
            )
        if self.training_bar is not None:
            self.training_bar.set_postfix(loss=f"{loss:.4f}")


def adapted_layers(config: TrainConfig) -> str:
    """The regular expression, over full names, of the layers that get an adapter."""
    return rf".*\blanguage_model\..*\.({'|'.join(config.lora_layers)})"


def build_trainer(
    config: TrainConfig,
    model: Any,
    processor: Any,
    rows: pa.Table,
    items: Mapping[ItemId, Item],
    scratch: Path,
) -> SFTTrainer:
    """TRL's trainer over the rows, checkpointing and logging into `scratch`."""
    columns = {name: rows[name].to_pylist() for name in ("item_id", "preference", "label")}
    arguments = SFTConfig(
        output_dir=str(scratch),
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_fraction,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        bf16=config.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        data_seed=config.seed,
        dataloader_num_workers=config.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,  # the columns are made when a row is used
        max_length=None,  # truncation would silently cut pictures or the answer
        logging_steps=config.log_steps,
        logging_nan_inf_filter=False,
        save_steps=config.checkpoint_steps,
        save_total_limit=config.num_checkpoints,
        report_to=["tensorboard"],
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        data_collator=AnswerCollator(processor),
        train_dataset=Dataset.from_dict(columns).with_transform(RowsWithPictures(items)),
        processing_class=processor,
        peft_config=LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=adapted_layers(config),
            bias="none",
        ),
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(ProgressOnStderr())
    return trainer


def _fit(work: Work, scratch: Path, trained: Path) -> None:
    dtype = torch.bfloat16 if work.config.precision == "bfloat16" else torch.float32
    try:
        processor = AutoProcessor.from_pretrained(work.model)
        model = AutoModelForImageTextToText.from_pretrained(work.model, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(work.model, error) from error
    trainer = build_trainer(work.config, model, processor, work.rows, work.items, scratch)
    checkpoints = _checkpoints(scratch)
    resumed = checkpoints[-1].name if checkpoints else ""
    log.info("training_started", rows=work.rows.num_rows, resumed=resumed)
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)

    adapted = trainer.model
    adapted.peft_config["default"].base_model_name_or_path = work.model_name
    saving = scratch / "saving"
    shutil.rmtree(saving, ignore_errors=True)
    adapted.save_pretrained(saving, save_embedding_layers=False)
    (saving / "README.md").unlink(missing_ok=True)  # PEFT's empty card; the manifest says it all
    saving.rename(trained)


def _checkpoints(scratch: Path) -> list[Path]:
    """The whole checkpoints, oldest first; what a kill left half-written is removed."""
    found = []
    for folder in scratch.glob("checkpoint-*"):
        if (folder / "trainer_state.json").exists():  # the trainer writes it last
            found.append(folder)
        else:
            shutil.rmtree(folder)
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


# --- what came of it -----------------------------------------------------------------------------


def _validate(work: Work, adapter: Path) -> AdapterManifest:
    engine = LocalEngine.load(work.model, str(adapter))
    validation = asyncio.run(_validation_auc(engine, work))
    answers = answer_tokens(AutoProcessor.from_pretrained(work.model))
    labels = work.rows["label"].to_pylist()
    return AdapterManifest(
        fingerprint=work.fingerprint,
        definition=current_definition(),
        model=work.model_fingerprint,
        model_name=work.model_name,
        image_size=work.image_size,
        answer_tokens={"yes": answers.yes, "no": answers.no},
        inputs=dict(work.inputs),
        config=work.recorded_config,
        counts={
            "training_rows": len(labels),
            "training_positives": sum(labels),
            "validation_rows": work.validation.num_rows,
        },
        validation=validation,
        versions={name: version(name) for name in ("torch", "transformers", "peft", "trl")},
    )


async def _validation_auc(engine: Engine, work: Work) -> dict[str, float]:
    """Pooled AUC on validation users, by the engine and the score that serve."""
    by_user: dict[UserId, list[dict[str, Any]]] = {}
    for row in work.validation.to_pylist():
        by_user.setdefault(row["user_id"], []).append(row)
    groups = [
        ScoringGroup(user_id, rows[0]["preference"], tuple(work.items[r["item_id"]] for r in rows))
        for user_id, rows in by_user.items()
    ]
    scores: list[float] = []
    try:
        bar = tqdm(total=len(groups), desc="validating", unit="user")
        async for _, scored in score_groups(engine, groups):
            scores += [candidate.margin for candidate in scored]
            bar.update()
        bar.close()
    finally:
        await engine.close()
    labels = [row["label"] for rows in by_user.values() for row in rows]
    return {"validation_auc": round(metrics.auc(scores, labels), 6)}
