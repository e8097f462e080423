"""Rewrites the weights of a checkpoint: the same files, names and index, other values.

transformers has other names in memory than published checkpoints have on disk, and every family has
its own. vLLM reads the published ones. So a changed checkpoint takes names, files and order from
its base, and transformers' own table says which parameter each name is. One file is in memory at a
time, and the one that is written from it.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from model_training.finetune.peft_methods import without_weights
from services.core.data_folder.atomic_write import atomic_write, unfinished_file
from services.core.errors import ModelUnusable
from services.engines.models.model_card import CARD

INDEX_FILE = "model.safetensors.index.json"
# Other files of a checkpoint: configuration, tokenizer, processor, template.
_KEPT_SUFFIXES = (".json", ".jinja", ".model", ".txt")

# Gets a parameter's name in memory and its value; returns the new value.
Change = Callable[[str, torch.Tensor], torch.Tensor]


class ParameterNames:
    """The name in memory of each weight of a checkpoint, by transformers' table."""

    def __init__(self, folder: Path) -> None:
        """`folder` has the checkpoint's configuration; no weight is loaded."""
        model = without_weights(str(folder))
        transforms = get_model_conversion_mapping(model)
        self._renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        self._converters = [each for each in transforms if isinstance(each, WeightConverter)]
        self._prefix = model.base_model_prefix
        self._state = model.state_dict()
        # Of parameters that are another's: whose they are.
        self.tied: Mapping[str, str] = dict(model.all_tied_weights_keys)

    def __getitem__(self, published: str) -> str:
        """ModelUnusable for a weight that is only a part of a parameter."""
        name, converter = rename_source_key(
            published, self._renamings, self._converters, self._prefix, self._state
        )
        if converter is not None:
            raise ModelUnusable(
                f"{published} is only a part of the parameter {name}; checkpoints of this family "
                "cannot be rewritten: serve the adapter by itself"
            )
        return str(name)


def write_changed_checkpoint(
    base: str, folder: Path, *, dtype: torch.dtype, change: Change
) -> None:
    """Write the model `base` (a folder or hub name) with changed weights into an empty folder.

    Weights come last; what makes them whole, the only file or the index, comes at the very end.
    """
    source = local_folder(base)
    files = weight_files(source)
    for path in source.iterdir():
        is_kept = path.suffix in _KEPT_SUFFIXES or path.name == CARD
        if is_kept and path.name != INDEX_FILE:
            shutil.copyfile(path, folder / path.name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)  # the older name of the same
    text = json.dumps(
        config | {"dtype": str(dtype).removeprefix("torch.")}, indent=2, ensure_ascii=False
    )
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    names = ParameterNames(source)
    num_bytes = 0
    for file in files:
        changed: dict[str, torch.Tensor] = {}
        with safe_open(source / file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a dict)
                value = change(names[name], weights.get_tensor(name))
                changed[name] = value.to(dtype) if value.is_floating_point() else value
        num_bytes += sum(value.nbytes for value in changed.values())
        with unfinished_file(folder / file) as unfinished:
            save_file(changed, unfinished, metadata={"format": "pt"})
            Path(unfinished).chmod(0o644)  # safetensors leaves it to its owner alone
    if (source / INDEX_FILE).is_file():
        index = json.loads((source / INDEX_FILE).read_text(encoding="utf-8"))
        index["metadata"] = {"total_size": num_bytes}
        atomic_write(folder / INDEX_FILE, f"{json.dumps(index, indent=2)}\n".encode())


class CheckpointWeights:
    """The weights of a checkpoint by the parameters' names in memory, each read when asked for."""

    def __init__(self, folder: Path) -> None:
        """ModelUnusable for a folder without weights."""
        names = ParameterNames(folder)
        self._places: dict[str, tuple[Path, str]] = {}
        for file in weight_files(folder):
            with safe_open(folder / file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a dict)
                    self._places[names[name]] = (folder / file, name)
        for tied, source in names.tied.items():  # written once
            self._places.setdefault(tied, self._places[source])

    def __getitem__(self, parameter: str) -> torch.Tensor:
        file, name = self._places[parameter]
        with safe_open(file, "pt") as weights:
            value: torch.Tensor = weights.get_tensor(name)
        return value


def weight_files(folder: Path) -> list[str]:
    """The files that hold a checkpoint's weights; ModelUnusable if there are none."""
    index = folder / INDEX_FILE
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(weight_map.values()))
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    raise ModelUnusable(f"{folder} holds no model.safetensors; name a checkpoint folder")


def local_folder(model: str) -> Path:
    """The folder of a checkpoint, fetched from the hub if `model` is a name there."""
    return Path(model) if Path(model).is_dir() else Path(snapshot_download(model))
