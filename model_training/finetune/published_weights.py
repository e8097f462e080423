"""Writes weights under the names that published LLaVA-NeXT checkpoints use.

transformers 5 has other names in memory and on disk. It reads both; vLLM reads only the published
ones. So every checkpoint of this project has the published names:

    vision_tower.vision_model.*  multi_modal_projector.*  image_newline
    language_model.model.*       language_model.lm_head.*

A whole checkpoint is these weights beside the base model's own configuration, tokenizer, processor
and template.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from safetensors.torch import save_file

from services.core.data_folder.atomic_write import atomic_write, unfinished_file

# The largest size of a file; this much is in memory twice while it is written.
MAX_SHARD_BYTES = 5_000_000_000
INDEX_FILE = "model.safetensors.index.json"

# Other files of a checkpoint: configuration, tokenizer, processor, template.
_KEPT_SUFFIXES = (".json", ".jinja", ".model", ".txt")
_WEIGHTS_INDEX_SUFFIX = ".index.json"

_PREFIXES = (
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def published_name(name: str) -> str:
    """The published name of a parameter that transformers 5 calls `name`."""
    for own, published in _PREFIXES:
        if name.startswith(own):
            rest = name.removeprefix(own)
            if published == "vision_tower." and not rest.startswith("vision_model."):
                rest = f"vision_model.{rest}"
            return published + rest
    raise ValueError(f"no published name is known for the parameter {name!r}")


def write_weights(
    state: Mapping[str, torch.Tensor],
    folder: Path,
    *,
    dtype: torch.dtype,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model's `state_dict()` as `model.safetensors`, or as shards with an index.

    What makes the weights whole, the only file or the index, comes last and at once.
    """
    published = {
        published_name(name): parameter.detach()
        for name, parameter in state.items()
        if not name.endswith("position_ids")
    }
    split = split_torch_state_dict_into_shards(published, max_shard_size=max_shard_bytes)
    for file_name, names in split.filename_to_tensors.items():
        shard = {name: published[name].to(dtype).contiguous().clone() for name in names}
        with unfinished_file(folder / file_name) as unfinished:
            save_file(shard, unfinished, metadata={"format": "pt"})
            Path(unfinished).chmod(0o644)  # safetensors leaves it to its owner alone
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        atomic_write(folder / INDEX_FILE, f"{json.dumps(index, indent=2)}\n".encode())


def write_whole_checkpoint(
    state: Mapping[str, torch.Tensor], *, base: str, folder: Path, dtype: torch.dtype
) -> None:
    """Write changed weights of the model `base` (a folder or hub name) as a checkpoint of its own.

    `folder` exists and is empty; the weights come last.
    """
    source = local_folder(base)
    for path in source.iterdir():
        if path.suffix in _KEPT_SUFFIXES and not path.name.endswith(_WEIGHTS_INDEX_SUFFIX):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # the older name of the same
    text = json.dumps(
        config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2, ensure_ascii=False
    )
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    write_weights(state, folder, dtype=dtype)


def local_folder(model: str) -> Path:
    """The folder of a checkpoint, fetched from the hub if `model` is a name there."""
    return Path(model) if Path(model).is_dir() else Path(snapshot_download(model))
