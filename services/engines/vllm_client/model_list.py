"""The answer of a vLLM server to `/v1/models`: names, and the weights behind them.

The weights are identified by the server's labels (`weight_labels.py`). For a server without labels
the checkpoint folders are read, if this machine can read them. Else the paths of the weights
identify them, and P(Yes) is not calibrated.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.core.errors import ArtifactMismatch, EngineUnavailable, ModelUnusable
from services.core.sanitize_text import clean_text
from services.core.scoring import NOT_CALIBRATED
from services.engines.adapter_manifest import (
    MANIFEST,
    AdapterManifest,
    read_adapter_manifest,
    require_servable,
)
from services.engines.checkpoints import (
    encoded,
    fingerprint_checkpoint,
    identify,
    is_merged,
    read_adapter,
)
from services.engines.contract import AS_SERVED, EngineIdentity
from services.engines.models.model_card import MAX_NAME_CHARS, NO_CARD, ModelCard
from services.engines.weight_labels import PREFIX, WeightLabels, definition_fingerprint

_LOADED_AT_RUN_TIME = re.compile(r".+@[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Weights:
    """The names in use: `model` writes texts, `adapter` scores (None: the model scores too)."""

    model: str
    adapter: str | None
    identity: EngineIdentity
    max_tokens: int

    @property
    def scorer(self) -> str:
        """The name to request scores from."""
        return self.adapter or self.model

    def encoded(self, *, adds_special_tokens: bool) -> "Weights":
        """The same, identified also by how their prompts are encoded."""
        model = encoded(self.identity.model, adds_special_tokens=adds_special_tokens)
        return replace(self, identity=replace(self.identity, model=model))

    @property
    def is_merged(self) -> bool:
        """Whether the model is a merged checkpoint, which writes no texts."""
        return self.adapter is None and bool(self.identity.adapter)


class ModelList:
    """One server's `/v1/models`, read; `adapters` are the names of those it serves."""

    def __init__(self, url: str, listing: Any) -> None:
        """EngineUnavailable if `listing` is not what a vLLM server says."""
        self._url = url
        try:
            entries = {str(entry["id"]): dict(entry) for entry in listing["data"]}
            models = {name: e for name, e in entries.items() if not name.startswith(PREFIX)}
            self._bases = [name for name, entry in models.items() if not entry.get("parent")]
            self._max_tokens = int(models[self._bases[0]]["max_model_len"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineUnavailable(
                f"{url}/v1/models is not answered as a vLLM server does ({error!r}); give the "
                "address of one, without a path"
            ) from error
        self.adapters = [name for name, entry in models.items() if entry.get("parent")]
        self._roots = {name: str(entry.get("root") or name) for name, entry in models.items()}
        self._labels = WeightLabels(entries)

    def choose(self, model: str, adapter: str | None) -> Weights:
        """The weights under these names; AS_SERVED stands for the one that is served.

        Reads checkpoint folders of a server without labels. Raises ModelUnusable if the server
        lacks them, ArtifactMismatch if the adapter belongs to other definitions or another base.
        """
        model = self._bases[0] if model == AS_SERVED else model
        if model not in self._bases:
            raise ModelUnusable(
                f"the server at {self._url} serves {sorted(self._bases)}, not {model!r}; name one "
                "of these, or start it with `msr serve-model --model DIR --name NAME`"
            )
        adapter = self._only_adapter() if adapter == AS_SERVED else adapter
        if adapter is not None and adapter not in self.adapters:
            raise ModelUnusable(
                f"the server at {self._url} serves the adapters {sorted(self.adapters)}, not "
                f"{adapter!r}; name one of these, or start it with `msr serve-model --adapter "
                "NAME=DIR`"
            )
        return Weights(model, adapter, self._identify(model, adapter), self._max_tokens)

    def name_of(self, digest: str) -> str | None:
        """The name under which it serves the adapter of this fingerprint, by its labels."""
        named = self._labels.names_of_adapter(digest)
        return next((name for name in named if name in self.adapters), None)

    def describe(self, weights: Weights) -> str:
        """All that the server says of these weights; it changes if they do. Reads no folder."""
        roots = [self._roots.get(name) for name in (weights.model, weights.adapter) if name]
        return json.dumps([roots, self._labels.about(weights.adapter or ""), self._max_tokens])

    def _only_adapter(self) -> str | None:
        """The one that the server was started with; those loaded later come and go."""
        own = [name for name in self.adapters if not _LOADED_AT_RUN_TIME.fullmatch(name)]
        if len(own) > 1:
            raise ModelUnusable(
                f"the server at {self._url} serves the adapters {sorted(own)}; name the one to "
                "use, or `none`"
            )
        return own[0] if own else None

    def _identify(self, model: str, adapter: str | None) -> EngineIdentity:
        base, merged = self._labels.model, self._labels.merged
        card = self._labels.card or NO_CARD
        if base is None:
            root = self._roots[model]
            from_root = identify(root) if _is_readable(root) else EngineIdentity(root, "")
            base, merged, card = from_root.model, from_root.adapter, from_root.card
        # A server that says nothing serves it under a name, which is better than a fingerprint.
        card = card if card.name else ModelCard(clean_text(model, MAX_NAME_CHARS))
        digest = merged or ""
        if adapter is not None:
            digest = self._labels.adapter(adapter) or _adapter_digest(self._roots[adapter])
        if not digest:
            return EngineIdentity(base, "", card=card)
        root, name = self._roots[adapter or model], adapter or ""
        manifest = self._servable_manifest(root, base)
        try:
            calibration, scores = self._labels.calibration(name), self._labels.scores(name)
        except ValueError as error:
            raise ModelUnusable(
                f"the server at {self._url} gives {error}, which this version cannot read; start "
                "it with this version of `msr serve-model`"
            ) from error
        if manifest is not None:
            calibration = calibration or manifest.correction
            scores = scores or manifest.score_histogram
        return EngineIdentity(base, digest, calibration or NOT_CALIBRATED, scores, card)

    def _servable_manifest(self, root: str, base: str) -> AdapterManifest | None:
        """That of the adapter or merged checkpoint in `root`, if this machine can read it."""
        definition, own = self._labels.definition, definition_fingerprint()
        if definition not in (None, own):
            raise ArtifactMismatch(
                f"the server at {self._url} was started for definitions {definition}, this version "
                f"has {own}: prompts or answers differ; start the server with this version and an "
                "adapter that it trained"
            )
        if not _is_readable(root) or not (Path(root) / MANIFEST).is_file():
            return None
        manifest = read_adapter_manifest(root) if is_merged(root) else read_adapter(root)
        require_servable(manifest, model=base)
        return manifest


def _adapter_digest(root: str) -> str:
    return fingerprint_checkpoint(root) if _is_readable(root) else root


def _is_readable(root: str) -> bool:
    # A relative path is relative to where the server was started; a hub name looks like one.
    return Path(root).is_absolute() and Path(root).is_dir() and os.access(root, os.R_OK | os.X_OK)
