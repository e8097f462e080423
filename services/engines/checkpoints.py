"""Which weights these are: a fingerprint of a checkpoint or adapter folder.

The fingerprint goes into artifacts and cache keys, so it depends on the contents of the files and
not on their place.

A merged checkpoint (`msr merge-adapter`) keeps the adapter's manifest. It answers Yes or No as the
base model with that adapter does, under the same identity. It writes no texts: summaries and
preferences are the base model's.
"""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

from services.core.errors import ArtifactMismatch, ModelUnusable
from services.engines.adapter_manifest import (
    MANIFEST,
    AdapterManifest,
    read_adapter_manifest,
    require_servable,
)
from services.engines.contract import EngineIdentity
from services.engines.models.model_card import CARD, ModelCard, read_card
from services.engines.models.model_files import is_folder, load_processor, read_config

# Weight files up to this size are hashed whole; of larger ones (a 7B checkpoint has files of 5 GB)
# the first and last MiB and the length are, which holds every tensor's name, type, shape and place.
MAX_WHOLE_BYTES = 256 * 1024 * 1024
_EDGE_BYTES = 1024 * 1024
_COUNTED_SUFFIXES = (".json", ".safetensors", ".jinja", ".model")
ADDS_SPECIAL_TOKENS = "+special-tokens"
# Written by training about the weights, not part of them.
_NOT_WEIGHTS = ("manifest.json", "trainer_state.json", "training_args.json")


def fingerprint_checkpoint(folder: str | Path) -> str:
    """Digest of a folder's weights, configuration, tokenizer and template: 16 hex digits.

    Raises ModelUnusable if the folder has no safetensors weights.
    """
    if not Path(folder).is_dir():
        raise ModelUnusable(f"there is no folder {folder}; name a checkpoint or adapter folder")
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
    if is_merged(folder):  # of large files only the ends are read, which merging may leave alone
        digest.update(read_adapter_manifest(folder).fingerprint.encode())
    return digest.hexdigest()[:16]


def identify_model(model: str) -> str:
    """Which base model this is: a folder's fingerprint, or a hub name with its revision; and how
    its prompts are encoded.

    Raises ModelUnusable if it is neither a checkpoint folder nor a hub name within reach.
    """
    if not is_folder(model):
        name = f"{model}@{read_config(model)._commit_hash}"
    else:
        name = fingerprint_checkpoint(model)
        if not any(Path(model).glob("tokenizer*")):
            return name  # nothing encodes prompts here
    return encoded(name, adds_special_tokens=_adds_special_tokens(model, name))


@cache
def _adds_special_tokens(model: str, name: str) -> bool:
    """Of the model that `name` identifies; found once a process: loading takes a second."""
    from services.engines.prompt_encoding import tokenizer_adds_special_tokens  # loads torch

    return tokenizer_adds_special_tokens(load_processor(model, texts_only=True))


def encoded(model: str, *, adds_special_tokens: bool) -> str:
    """The identity of a base model whose tokenizer does or does not add special tokens.

    What was written, scored or trained under one way is not mixed with the other. Where nothing is
    added the weights alone identify the model, as before this was part of its identity.
    """
    weights = model.removesuffix(ADDS_SPECIAL_TOKENS)
    return f"{weights}{ADDS_SPECIAL_TOKENS}" if adds_special_tokens else weights


def is_merged(model: str | Path) -> bool:
    """Whether this is the folder of a merged checkpoint."""
    return (Path(model) / MANIFEST).is_file() and (Path(model) / "config.json").is_file()


def manifest_in_use(model: str, adapter: str | None) -> AdapterManifest | None:
    """The manifest of the adapter, or of the one that is merged into the model; None for a base.

    Raises ModelUnusable if the manifest cannot be read, or for an adapter on a merged checkpoint.
    """
    if is_merged(model):
        if adapter is not None:
            raise ModelUnusable(
                f"{model} is a merged checkpoint, which takes no further adapter; leave out the "
                f"adapter {adapter!r}, or name the base model"
            )
        return read_adapter_manifest(model)
    return read_adapter(adapter) if adapter is not None else None


def read_adapter(folder: str | Path) -> AdapterManifest:
    """The manifest of an adapter folder; ModelUnusable if the weights beside it are others than
    those that it was written for.
    """
    manifest = read_adapter_manifest(folder)
    found = fingerprint_checkpoint(folder)
    if manifest.weights != found:
        raise ModelUnusable(
            f"the manifest in {folder} was written for weights {manifest.weights}, there lie "
            f"{found}; put the files of one training there, or run `msr train` again"
        )
    return manifest


def identify(model: str, adapter: str | None = None) -> EngineIdentity:
    """Which weights answer when these are opened; ModelUnusable if they cannot be.

    `require_matching` says whether this base may serve the adapter.
    """
    if is_merged(model):
        manifest = manifest_in_use(model, adapter)
        assert manifest is not None
        weights = fingerprint_checkpoint(model)
        return identity_from_manifest(manifest, manifest.model, weights, _card_of_merged(model))
    card = read_card(model)
    if adapter is None:
        return EngineIdentity(identify_model(model), "", card=card)
    base, digest = identify_model(model), fingerprint_checkpoint(adapter)
    # An adapter without a manifest: its training is still validating it. `open_engine` refuses it.
    if not (Path(adapter) / MANIFEST).exists():
        return EngineIdentity(base, digest, card=card)
    return identity_from_manifest(read_adapter_manifest(adapter), base, digest, card)


def require_matching(model: str, adapter: str | None) -> None:
    """ArtifactMismatch unless this adapter, or the merged one, may be served on this base."""
    manifest = manifest_in_use(model, adapter)
    if manifest is None:
        return
    require_servable(manifest, model=identify(model, adapter).model)
    if not manifest.encoding:
        return
    from services.engines.prompt_encoding import PromptEncoder  # loads torch

    if PromptEncoder(load_processor(model)).fingerprint != manifest.encoding:
        raise ArtifactMismatch(
            f"the chat template or tokenizer in {model} is not the one that the adapter "
            f"{manifest.fingerprint} was trained with; put the files of its base model there"
        )


def identify_servable(adapter: str, *, model: str) -> EngineIdentity:
    """Which weights answer when this adapter folder is put on the base of fingerprint `model`.

    Raises ModelUnusable for a folder that is none or is damaged, ArtifactMismatch for an adapter of
    other definitions or of another base.
    """
    manifest = read_adapter(adapter)
    require_servable(manifest, model=model)
    return identity_from_manifest(manifest, model, manifest.weights, ModelCard(manifest.model_name))


def identity_from_manifest(
    manifest: AdapterManifest, model: str, weights: str, card: ModelCard
) -> EngineIdentity:
    return EngineIdentity(model, weights, manifest.correction, manifest.score_histogram, card)


def _card_of_merged(model: str | Path) -> ModelCard:
    """The base model's card: merging copies it, and the adapter's manifest has its name too."""
    card = read_card(str(model))
    named = (Path(model) / CARD).is_file() and card.name != Path(model).resolve().name
    return card if named else replace(card, name=read_adapter_manifest(model).model_name)


def only_scores(model: str) -> ModelUnusable:
    """What `generate` raises on a merged checkpoint."""
    return ModelUnusable(
        f"{model} is a merged checkpoint: it answers Yes or No and writes no texts; write them "
        "with its base model, and name the merged one as the recommender only"
    )


def _content(path: Path) -> bytes:
    if path.stat().st_size <= MAX_WHOLE_BYTES:
        return hashlib.sha256(path.read_bytes()).digest()
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(-_EDGE_BYTES, 2)
        return head + file.read()
