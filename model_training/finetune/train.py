"""Step 6, `msr train`: fine-tunes an adapter that answers Yes or No (MLLM-MSR, section 3.3).

    msr train --data D --stage sft|dpo|rank|harden --config FILE
    accelerate launch --num_processes 8 -m services.cli train --data D --config FILE

Reads `examples` and `items`; writes an adapter folder: PEFT's files and `manifest.json` (method
`full`: a merged checkpoint). Every run is planned and checked (`run_plan`), trained by its stage
(`stages`), validated and calibrated by the engine that serves, and published as a whole. A killed
run resumes from its last checkpoint; a finished one is not repeated. TensorBoard logs are in
`training/FINGERPRINT/runs` of the data folder.
"""

import asyncio
import gc
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from scipy.special import expit
from tqdm import tqdm

from model_training.finetune import calibrate, estimate, tracking
from model_training.finetune.config import TrainConfig
from model_training.finetune.distributed import is_main
from model_training.finetune.run_plan import (
    RunPlan,
    checkpoints,
    plan_run,
    recorded_shapes,
    scratch_folder,
)
from model_training.finetune.stages import find_stage
from model_training.finetune.trainer import fit
from model_training.scoring import metrics
from model_training.scoring.score_users import UserCandidates, score_users
from services.core.drift import ScoreHistogram
from services.core.errors import InputError, ModelUnusable
from services.core.records import UserId
from services.core.scoring import Calibration
from services.engines.adapter_manifest import (
    MANIFEST,
    AdapterManifest,
    current_definition,
    read_adapter_manifest,
)
from services.engines.checkpoints import fingerprint_checkpoint
from services.engines.contract import Engine
from services.engines.local.engine import LocalEngine
from services.engines.models.model_files import load_processor
from services.engines.prompt_encoding import PromptEncoder
from services.telemetry.build import DISTRIBUTION

log = structlog.get_logger(__name__)

# A whole model is no adapter: commands load what is in `adapter` onto a base.
OUTPUT_OF_FULL = "merged"
# The protocol of the examples' negatives.
PROTOCOL = "chrono-uniform"
_VERSIONS = (DISTRIBUTION, "torch", "transformers", "peft", "trl", "accelerate")


def run(
    data: str,
    config: TrainConfig,
    *,
    stage: str = "sft",
    start_adapter: str | None = None,
    output: str | None = None,
    model: str | None = None,
    trackers: Sequence[str] | None = None,
    push_to_hub: str | None = None,
    only_estimate: bool = False,
    upload: tracking.Upload = tracking.upload_to_hub,
) -> dict[str, Any]:
    """Train and save to `output` (default: the stage's folder in the data folder).

    `model`, `trackers` and `push_to_hub` override the configuration. Returns the manifest's counts
    and validation metrics, or with `only_estimate` the result of `estimate.run`; in processes other
    than the main one nothing. Raises ArtifactMismatch or EmptyDataset for examples that cannot be
    trained on, InputError for a machine or an output folder that does not fit, all before a weight
    is loaded; ModelUnusable if the base cannot be loaded or a loss is not finite.
    """
    if output is None and "://" in data:
        raise InputError(f"training writes local files, {data} is none; give --output a folder")
    config = tracking.reporting(config, trackers, push_to_hub)
    found = find_stage(stage)
    default = OUTPUT_OF_FULL if config.method == "full" else found.output
    folder = Path(output) if output is not None else Path(data) / default
    if config.push_to_hub and upload is tracking.upload_to_hub:
        tracking.require_token()
    _require_replaceable(folder)
    plan = plan_run(data, config, model or config.base_model, found, start_adapter)
    if only_estimate:
        return estimate.run(plan)

    finished = _finished(folder)
    scratch = scratch_folder(plan, folder.parent if "://" in data else Path(data))
    trained = scratch / "trained"
    if finished is not None and finished.fingerprint == plan.fingerprint:
        log.info("training_found_finished", folder=str(folder))
        if not is_main():
            return {}
        _clean_up(scratch, trained)
        return _reported(finished) | _pushed(folder, config, upload)

    scratch.mkdir(parents=True, exist_ok=True)
    if not trained.exists():  # else a run was killed while it validated
        fit(plan, scratch, trained)
        gc.collect()  # the trainer's cycles hold its model; validation loads another
        torch.cuda.empty_cache()
    if not is_main():
        return {}
    manifest = _manifest(plan, trained)
    (trained / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    _publish(trained, folder)
    _clean_up(scratch, trained)
    log.info("adapter_trained", folder=str(folder), **_reported(manifest))
    return _reported(manifest) | _pushed(folder, config, upload)


# --- the output folder ---------------------------------------------------------------------------


def _require_replaceable(folder: Path) -> None:
    """InputError unless the folder is absent, empty, or what an earlier training published."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).is_file()):
        return
    if folder.exists():
        raise InputError(
            f"{folder} is there already and `msr train` did not make it; remove it, or give "
            "--output another folder"
        )


def _finished(folder: Path) -> AdapterManifest | None:
    """The manifest that an earlier training of this version wrote, if there is one."""
    if (folder / MANIFEST).exists():
        with suppress(ModelUnusable):  # an older version, which is replaced
            return read_adapter_manifest(folder)
    return None


def _reported(manifest: AdapterManifest) -> dict[str, Any]:
    validation = {f"validation_{name}": value for name, value in manifest.validation.items()}
    return {**manifest.counts, **validation}


def _publish(trained: Path, folder: Path) -> None:
    """Replace an earlier adapter by the new one; `folder` may be on another disk.

    A kill leaves the earlier adapter, the new one, or for an instant none, and never a part of one.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    replaced = folder.with_name(f"{folder.name}.replaced")
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(trained, unfinished)
    if folder.exists():
        folder.rename(replaced)
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _clean_up(scratch: Path, trained: Path) -> None:
    """Remove the intermediate files of a published run.

    `trained` is renamed first, so that a kill never leaves a part of it under its name.
    """
    removing = scratch / "removing"
    shutil.rmtree(removing, ignore_errors=True)
    if trained.exists():
        trained.rename(removing)
        shutil.rmtree(removing)
    for leftover in checkpoints(scratch):
        shutil.rmtree(leftover)


def _pushed(folder: Path, config: TrainConfig, upload: tracking.Upload) -> dict[str, str]:
    if not config.push_to_hub:
        return {}
    address = upload(folder, config.push_to_hub)
    log.info("adapter_pushed", folder=str(folder), address=address)
    return {"pushed_to": address}


# --- validation and calibration ------------------------------------------------------------------


def _manifest(plan: RunPlan, trained: Path) -> AdapterManifest:
    if plan.config.method == "full":
        engine = LocalEngine.load(str(trained))
    else:
        engine = LocalEngine.load(plan.model, str(trained))
    margins = asyncio.run(_validate(engine, plan))
    labels, user_ids = (plan.validation[name].to_pylist() for name in ("label", "user_id"))
    calibration = _calibration(margins, labels, user_ids)
    encoder = PromptEncoder(load_processor(plan.model))
    answers = encoder.answers
    return AdapterManifest(
        fingerprint=plan.fingerprint,
        weights=fingerprint_checkpoint(trained),
        stage=plan.stage.name,
        parent=plan.parent,
        protocol=PROTOCOL,
        definition=current_definition(),
        model=plan.model_fingerprint,
        model_name=plan.model_name,
        image_size=plan.image_form.size,
        image_shapes=recorded_shapes(plan.image_form),
        answer_tokens={"yes": answers.yes, "no": answers.no},
        inputs=dict(plan.inputs),
        config=plan.recorded_config,
        counts={
            "training_rows": plan.rows.num_rows,
            "training_positives": sum(plan.rows["label"].to_pylist()),
            "validation_rows": plan.validation.num_rows,
        },
        validation=_metrics(margins, labels),
        calibration=calibration,
        versions={name: version(name) for name in _VERSIONS},
        validation_scores=_score_histogram(margins, calibration),
        encoding=encoder.fingerprint,
        preferences_by=plan.preferences_by,
    )


async def _validate(engine: Engine, plan: RunPlan) -> list[float]:
    """The margins of the validation rows, by the engine and the function that serve."""
    users = []
    for user_id, group in groupby(plan.validation.to_pylist(), key=itemgetter("user_id")):
        rows = list(group)
        candidates = tuple(plan.items[row["item_id"]] for row in rows)
        users.append(UserCandidates(user_id, rows[0]["preference"], candidates))
    margins: list[float] = []
    try:
        bar = tqdm(total=len(users), desc="validating", unit="user")
        async for _, scored in score_users(engine, users):
            margins += [candidate.margin for candidate in scored]
            bar.update()
        bar.close()
    finally:
        await engine.close()
    return margins


def _metrics(margins: list[float], labels: list[bool]) -> dict[str, float]:
    """Pooled AUC, and means over users of AUC, HR, MRR and NDCG at the cutoffs that fit."""
    shape = (sum(labels), -1)  # every user has one target, and as many rows
    ranking = metrics.rank_targets(np.reshape(margins, shape), np.reshape(labels, shape))
    means = {name: float(np.mean(values)) for name, values in ranking.per_user().items()}
    found = {"auc": metrics.auc(margins, labels), **means}
    return {name: round(value, 6) for name, value in found.items()}


def _score_histogram(margins: list[float], calibration: Mapping[str, float]) -> dict[str, Any]:
    """The histogram of P(Yes) over validation users; serving compares its scores with it."""
    corrected = Calibration(calibration["slope"], calibration["intercept"])
    found = ScoreHistogram.of([corrected.probability(each) for each in margins])
    return {"edges": list(found.edges), "counts": list(found.counts)}


def _calibration(
    margins: list[float], labels: list[bool], user_ids: list[UserId]
) -> dict[str, float]:
    """Platt's correction; none, with a warning, for an adapter that is no better than chance."""
    try:
        return calibrate.measure(margins, labels, user_ids)
    except ModelUnusable as error:
        log.warning("adapter_not_calibrated", reason=str(error))
    gap = metrics.expected_calibration_error(expit(margins), labels)
    prior = float(np.mean(labels))
    return {"slope": 1.0, "intercept": 0.0, "prior": prior, "ece_before": gap, "ece_after": gap}
