"""Plans a training run: reads its inputs and checks them before any weight is loaded.

A mistake is found within seconds and not after hours. A stage trains what the `RunPlan` holds.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from model_training.data.example_checks import require_both_classes, require_sound_examples
from model_training.data.inputs import open_inputs
from model_training.finetune import peft_methods
from model_training.finetune.config import TrainConfig
from model_training.finetune.distributed import is_main, num_processes
from services.core.artifacts import Artifact, Manifest
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.fingerprint import fingerprint
from services.core.images import ImageForm
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import Item, ItemId
from services.engines.adapter_manifest import current_definition, require_servable
from services.engines.checkpoints import identify_model, read_adapter


def _accept(plan: "RunPlan") -> None:
    """The stage has no conditions of its own."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One way of training: how its trainer is built, and where its result goes.

    `build_trainer(plan, model, processor, scratch)` gives a trainer of transformers that saves its
    checkpoints in `scratch`. `output` is a folder of the data folder. `check` raises for a plan
    that the stage cannot train. `options` are the stage's own settings with their defaults;
    `stage_options` of the configuration overrides them.
    """

    name: str
    output: str
    build_trainer: Callable[["RunPlan", Any, Any, Path], Any]
    starts_from_adapter: bool = True
    check: Callable[["RunPlan"], None] = _accept
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunPlan:
    """A training run whose inputs have been read and checked.

    `rows` and `validation` are rows of the examples; the rows of a user are the positive, then
    uniform, then hard negatives. `start_adapter` is the folder of the adapter that the stage starts
    from, `parent` that adapter's fingerprint; None and "" for a stage that starts from the base.
    `preferences_by` is the identity of who wrote the preferences in the rows.
    """

    stage: Stage
    config: TrainConfig
    model: str
    model_fingerprint: str
    start_adapter: str | None
    parent: str
    rows: pa.Table
    validation: pa.Table
    items: Mapping[ItemId, Item]
    image_form: ImageForm
    inputs: Mapping[str, str]
    preferences_by: str = ""
    num_processes: int = 1
    callbacks: tuple[Any, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identifies the run by stage, base, start adapter, data, definitions and configuration."""
        return fingerprint(
            {
                "step": "train",
                "stage": self.stage.name,
                "parent": self.parent,
                "definition": current_definition(),
                "model": self.model_fingerprint,
                "inputs": dict(self.inputs),
                "config": self.recorded_config,
                # Processes share the rows, so their number changes the training.
                "num_processes": self.num_processes,
            }
        )

    @property
    def model_name(self) -> str:
        """The base model's hub name, or its folder's name: no path of this machine is recorded."""
        return Path(self.model).name if Path(self.model).is_dir() else self.model

    @property
    def options(self) -> Mapping[str, float]:
        """The stage's own settings."""
        return {**self.stage.options, **self.config.stage_options}

    @property
    def recorded_config(self) -> dict[str, Any]:
        """The configuration as fingerprint and manifest hold it."""
        options = {"stage_options": dict(self.options)} if self.options else {}
        return {**self.config.as_dict(), "base_model": self.model_name, **options}


def plan_run(
    data: str, config: TrainConfig, model: str, stage: Stage, start_adapter: str | None = None
) -> RunPlan:
    """Read and check everything that a run needs; the errors are those of `train.run`."""
    if unknown := sorted(set(config.stage_options) - set(stage.options)):
        known = ", ".join(sorted(stage.options)) or "none"
        raise InputError(
            f"stage {stage.name} has no option {unknown[0]!r}, which stage_options sets; its "
            f"options are: {known}"
        )
    peft_methods.require_hardware(config, has_cuda=torch.cuda.is_available())
    examples = Artifact(data, "examples")
    manifest = examples.manifest()
    inputs = open_inputs(data)
    inputs.require_same_inputs(manifest)
    _require_current_examples(manifest, config)
    model_fingerprint = identify_model(model)
    image_form = ImageForm.from_definition(inputs.items.definition)
    start_adapter, parent = _start(
        data, stage, config, start_adapter, model=model_fingerprint, image_form=image_form
    )
    table = examples.read()
    require_sound_examples(table, inputs.histories)
    rows = take_negatives(
        table.filter(pc.equal(table["split"], "train")),
        num_uniform=config.num_negatives,
        num_hard=config.num_hard_negatives,
    )
    rows = take_users(rows, config.max_rows, config.seed)
    validation = table.filter(pc.equal(table["split"], "validation"))
    require_both_classes(rows, "training")
    require_both_classes(validation, "validation")
    validation = first_users(validation, config.max_validation_users)
    if len(set(validation["user_id"].to_pylist())) < 2:
        raise EmptyDataset(
            "there is one validation user, and calibration needs at least two; build preferences "
            "for more users, or raise max_validation_users"
        )
    used = {*rows["item_id"].to_pylist(), *validation["item_id"].to_pylist()}
    return RunPlan(
        stage=stage,
        config=config,
        model=model,
        model_fingerprint=model_fingerprint,
        start_adapter=start_adapter,
        parent=parent,
        rows=rows,
        validation=validation,
        items=inputs.read_items(used),
        image_form=image_form,
        inputs={"examples": manifest.fingerprint, **manifest.inputs},
        preferences_by=_preferences_by(data, manifest),
        num_processes=num_processes(),
    )


def scratch_folder(plan: RunPlan, root: Path) -> Path:
    """The folder of a run's checkpoints and logs, under the data folder."""
    return root / "training" / plan.fingerprint


def checkpoints(scratch: Path) -> list[Path]:
    """The complete checkpoints, oldest first; incomplete ones are removed."""
    found = []
    for folder in scratch.glob("checkpoint-*"):
        if _is_whole(folder):
            found.append(folder)
        elif is_main():
            shutil.rmtree(folder)
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))


def _is_whole(checkpoint: Path) -> bool:
    try:  # the trainer writes this file last
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def take_negatives(table: pa.Table, *, num_uniform: int, num_hard: int) -> pa.Table:
    """The positives, and of every user the first uniform and the first hard negatives."""
    kinds = (
        table["kind"].to_pylist()
        if "kind" in table.column_names
        else ["positive" if label else "uniform" for label in table["label"].to_pylist()]
    )
    wanted = {"positive": 1, "uniform": num_uniform, "hard": num_hard}
    keep: list[bool] = []
    seen = dict.fromkeys(wanted, 0)
    for kind in kinds:  # within a user the positive comes first
        if kind == "positive":
            seen = dict.fromkeys(wanted, 0)
        seen[kind] += 1
        keep.append(seen[kind] <= wanted[kind])
    return table.filter(pa.array(keep, pa.bool_()))


def take_users(table: pa.Table, max_rows: int, seed: int) -> pa.Table:
    """All rows of users drawn by the seed, in their order, `max_rows` at most; with 0 the table."""
    if not 0 < max_rows < table.num_rows:
        return table
    counts = Counter(table["user_id"].to_pylist())
    users = list(counts)
    drawn, left = set(), max_rows
    for number in np.random.default_rng(seed).permutation(len(users)):
        if counts[users[number]] > left:
            break
        drawn.add(users[number])
        left -= counts[users[number]]
    if not drawn:
        raise InputError(
            f"max_rows {max_rows} is less than the {max(counts.values())} rows of one user; "
            "raise it"
        )
    return table.filter(pc.is_in(table["user_id"], pa.array(sorted(drawn), pa.string())))


def first_users(table: pa.Table, num_users: int) -> pa.Table:
    """The rows of the first `num_users` users."""
    users = list(dict.fromkeys(table["user_id"].to_pylist()))[:num_users]
    return table.filter(pc.is_in(table["user_id"], pa.array(users, pa.string())))


def _start(
    data: str,
    stage: Stage,
    config: TrainConfig,
    start_adapter: str | None,
    *,
    model: str,
    image_form: ImageForm,
) -> tuple[str | None, str]:
    """The folder and the fingerprint of the adapter that a stage starts from, if it needs one."""
    if stage.starts_from_adapter and config.method == "full":
        raise InputError(
            f"stage {stage.name} continues an adapter and method full has none; use lora or qlora"
        )
    if not stage.starts_from_adapter:
        if start_adapter is not None:
            raise InputError(
                f"--start-adapter is for stages after sft; {stage.name} starts from the base model"
            )
        return None, ""
    folder = Path(start_adapter) if start_adapter is not None else Path(data) / "adapter"
    if not folder.is_dir():
        raise InputError(
            f"stage {stage.name} starts from an adapter and there is none in {folder}; run `msr "
            "train --stage sft` first, or name one with --start-adapter"
        )
    manifest = read_adapter(folder)
    require_servable(manifest, model=model)
    seen = (manifest.image_size, manifest.image_shapes)
    if seen != (image_form.size, recorded_shapes(image_form)):
        raise ArtifactMismatch(
            f"the adapter in {folder} was trained on images of {_described(*seen)}, the items have "
            f"{_described(image_form.size, recorded_shapes(image_form))}; start from one that was "
            "trained on such images"
        )
    return str(folder), manifest.weights


def recorded_shapes(form: ImageForm) -> list[list[int]] | None:
    """The shapes of a form as an adapter's manifest holds them."""
    return [list(each) for each in form.sizes] if form.fit == "grid" else None


def _described(size: int, shapes: list[list[int]] | None) -> str:
    if shapes is None:
        return f"{size} pixels"
    sizes = ", ".join(f"{height} x {width}" for height, width in shapes)
    return f"{size} pixels in shapes of `--fit grid` (height x width: {sizes})"


def _preferences_by(data: str, examples: Manifest) -> str:
    """Who wrote the preferences that the examples were built from, which are still there."""
    inputs = [Artifact(data, name).manifest() for name in examples.inputs]
    [writer] = [each.writer for each in inputs if each.step == "build-preferences"]
    return writer.identity


def _require_current_examples(manifest: Manifest, config: TrainConfig) -> None:
    if manifest.definition["prompt"] != SCORING_FINGERPRINT:
        raise ArtifactMismatch(
            f"the examples were built for scoring prompt {manifest.definition['prompt']}, this "
            f"version has {SCORING_FINGERPRINT}; run `msr build-examples` again"
        )
    wanted = (
        ("num_negatives", "--negatives", config.num_negatives),
        ("num_hard_negatives", "--hard-negatives", config.num_hard_negatives),
    )
    for name, option, number in wanted:
        held = manifest.definition.get(name, 0)
        if number > held:
            raise ArtifactMismatch(
                f"the configuration wants {name} {number} a positive, the examples have {held}; "
                f"run `msr build-examples {option} {number}`"
            )
