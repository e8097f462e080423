"""Which weights these are: a fingerprint of a checkpoint or adapter folder.

The fingerprint goes into artifacts and cache keys, so it must follow from what the files contain
and not from where they lie.
"""

import hashlib
from pathlib import Path
from typing import Any

from services.core.errors import ModelUnusable

# Weight files up to this size are hashed whole; of larger ones (a 7B checkpoint has files of 5 GB)
# the first and last MiB and the length are, which holds every tensor's name, type, shape and place.
MAX_WHOLE_BYTES = 256 * 1024 * 1024
_EDGE_BYTES = 1024 * 1024
_COUNTED_SUFFIXES = (".json", ".safetensors", ".jinja", ".model")
# Written by training about the weights, not part of them.
_NOT_WEIGHTS = ("manifest.json", "trainer_state.json", "training_args.json")


def fingerprint_checkpoint(folder: str | Path) -> str:
    """Digest of a folder's weights, configuration, tokenizer and template: 16 hex digits.

    Raises ModelUnusable if the folder has no safetensors weights.
    """
    files = sorted(
        path
        for path in Path(folder).iterdir()
        if path.suffix in _COUNTED_SUFFIXES and path.name not in _NOT_WEIGHTS
    )
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelUnusable(f"{folder} holds no .safetensors weights; name a checkpoint folder")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\x00{path.stat().st_size}\x00".encode())
        digest.update(_content(path))
    return digest.hexdigest()[:16]


def identify_model(model: str, config: Any) -> str:
    """Which base model this is: a folder's fingerprint, or a hub name with its revision.

    `config` is the model's loaded transformers configuration.
    """
    if Path(model).is_dir():
        return fingerprint_checkpoint(model)
    return f"{model}@{config._commit_hash}"


def _content(path: Path) -> bytes:
    if path.stat().st_size <= MAX_WHOLE_BYTES:
        return hashlib.sha256(path.read_bytes()).digest()
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(-_EDGE_BYTES, 2)
        return head + file.read()
