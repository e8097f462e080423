"""`msr merge-adapter`: merges an adapter into its base model, so that scoring has no LoRA overhead.

    msr merge-adapter --model DIR --adapter DIR --out DIR [--dtype bfloat16|float32]

The checkpoint has the base's weight names and files, so vLLM loads it. Tokenizer, processor and
template are the base's, and the adapter's manifest is copied to it. A server of a merged checkpoint
scores faster (five times faster than LoRA on a CPU), but cannot change its adapter.

One file of the base is in memory at a time, and the one that is written from it.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import structlog
import torch
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file

from model_training.finetune.checkpoint_weights import write_changed_checkpoint
from services.core.errors import FolderNotWritable, InputError, ModelUnusable
from services.engines.adapter_manifest import (
    MANIFEST,
    AdapterManifest,
    read_adapter_manifest,
    require_servable,
)
from services.engines.checkpoints import (
    fingerprint_checkpoint,
    identify_model,
    is_merged,
    manifest_in_use,
)

log = structlog.get_logger(__name__)

DtypeName = Literal["bfloat16", "float32"]


def run(model: str, adapter: str, out: str, *, dtype: DtypeName = "bfloat16") -> dict[str, Any]:
    """Merge an adapter, unless it is merged already, and return the fingerprints and the size.

    Raises ArtifactMismatch for an adapter of another base or of other definitions, ModelUnusable
    for folders that are no model or adapter, InputError if `out` holds anything else.
    """
    manifest = manifest_in_use(model, adapter)
    assert manifest is not None
    require_servable(manifest, model=identify_model(model))
    folder = Path(out)
    if not _is_done(folder, manifest, dtype):
        unfinished = _start(folder)
        (unfinished / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _merge(model, adapter, unfinished, dtype=getattr(torch, dtype))
        # A rename, so that the folder never holds half a checkpoint under its own name.
        unfinished.replace(folder)
        log.info("adapter_merged", adapter=manifest.fingerprint, out=out, dtype=dtype)
    return {
        "out": out,
        "model": manifest.model,
        "adapter": manifest.fingerprint,
        "merged": fingerprint_checkpoint(folder),
        "dtype": dtype,
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
    }


def _is_done(folder: Path, manifest: AdapterManifest, dtype: DtypeName) -> bool:
    if not is_merged(folder):
        return False
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return read_adapter_manifest(folder) == manifest and config["dtype"] == dtype


def _start(folder: Path) -> Path:
    """An empty folder beside the final one; the rest of a killed merge is removed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is there already and is not this adapter merged; remove it, or give --out "
            "another folder"
        )
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise FolderNotWritable(
            f"{unfinished} cannot be made ({error}); give --out a folder that can be written"
        ) from error
    return unfinished


class _Merging:
    """Adds an adapter's products of two matrices to the weights that they belong to."""

    def __init__(self, adapter: Path) -> None:
        config = PeftConfig.from_pretrained(str(adapter))
        tensors = load_file(adapter / "adapter_model.safetensors")
        prefix, ends = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
        modules = {name.removeprefix(prefix).removesuffix(ends[0]) for name in tensors}
        modules = {name for name in modules if not name.endswith(ends[1])}
        self._pairs = {
            f"{module}.weight": tuple(tensors[f"{prefix}{module}{end}"] for end in ends)
            for module in modules
        }
        self._alpha = config.lora_alpha
        self._left = set(self._pairs)

    def __call__(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        if name not in self._pairs:
            return weight
        first, second = (each.float() for each in self._pairs[name])
        # In float32, so that a bfloat16 weight is rounded once, after the sum.
        scale = self._alpha / len(first)
        merged = weight.to(torch.float32, copy=True).addmm_(second, first, alpha=scale)
        if not merged.isfinite().all():
            raise ValueError(f"{name} is not finite once merged")
        self._left.discard(name)
        return merged

    def require_done(self) -> None:
        """ValueError if the model lacked a weight that the adapter changes."""
        if self._left:
            raise ValueError(f"the model has no {min(self._left)}")


def _merge(model: str, adapter: str, folder: Path, *, dtype: torch.dtype) -> None:
    try:
        merging = _Merging(Path(adapter))
        write_changed_checkpoint(model, folder, dtype=dtype, change=merging)
        merging.require_done()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelUnusable(
            f"cannot merge the adapter {adapter!r} into {model!r} ({error}); give --model the "
            "checkpoint that it was trained on and --adapter a folder that `msr train` wrote"
        ) from error
