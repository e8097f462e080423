"""What a vLLM server tells of itself in `/v1/models`: names, and the weights behind them.

`msr serve-model` adds names that no prompt uses, so that a client on any machine learns which
weights answer, by the fingerprints that the local engine has on the same folders:

    msr:model:FINGERPRINT            the base model (of a merged checkpoint: the one it came from)
    msr:merged:FINGERPRINT           the merged checkpoint, if it is one
    msr:adapter:NAME:FINGERPRINT     one for each adapter
    msr:calibration:NAME:SLOPE:INTERCEPT:PRIOR  of each adapter, or the merged checkpoint (no NAME)
    msr:scores:NAME:EDGES:COUNTS     P(Yes) on validation users (core/drift.py), comma-separated
    msr:definition:FINGERPRINT       the prompts and answers that the adapters were trained under

Of adapters that it was told to load while it runs it adds the same (`runtime_adapters.py`).

Of a server without these labels the folders are read, where they are readable here; else the
addresses of the weights stand for them, and their P(Yes) is as the model says it.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.core.drift import ScoreHistogram
from services.core.errors import ArtifactMismatch, EngineUnavailable, ModelUnusable
from services.core.fingerprint import fingerprint
from services.core.scoring import NOT_CALIBRATED, Calibration
from services.engines.adapter_manifest import (
    MANIFEST,
    current_definition,
    read_adapter_manifest,
    require_servable,
)
from services.engines.checkpoints import (
    fingerprint_checkpoint,
    identify,
    is_merged,
    read_adapter,
)
from services.engines.contract import AS_SERVED, EngineIdentity

_LABEL = "msr:"
_MODEL = "msr:model:"
_MERGED = "msr:merged:"
_ADAPTER = "msr:adapter:"
_CALIBRATION = "msr:calibration:"
_SCORES = "msr:scores:"
_DEFINITION = "msr:definition:"
_LOADED_AT_RUN_TIME = re.compile(r".+@[0-9a-f]{16}")


def labels(identity: EngineIdentity, adapters: Mapping[str, EngineIdentity]) -> list[str]:
    """The extra names of a server that serves these weights; `adapters`: name -> with adapter."""
    names = [f"{_MODEL}{identity.model}", f"{_DEFINITION}{fingerprint(current_definition())}"]
    if identity.adapter:
        names += [f"{_MERGED}{identity.adapter}", *_score_labels("", identity)]
    for name, adapted in sorted(adapters.items()):
        names += adapter_labels(name, adapted)
    return names


def adapter_labels(name: str, adapted: EngineIdentity) -> list[str]:
    """The names that say which adapter is served under this one."""
    return [f"{_ADAPTER}{name}:{adapted.adapter}", *_score_labels(name, adapted)]


def runtime_name(folder: str, digest: str) -> str:
    """Under which name a server loads an adapter while it runs; no other weights ever get it."""
    return f"{Path(folder).name}@{digest}"


def _score_labels(name: str, identity: EngineIdentity) -> list[str]:
    # repr gives back the very number when it is read: both engines' P(Yes) agree to the last bit.
    calibration, spread = identity.calibration, identity.validation_scores
    numbers = (calibration.slope, calibration.intercept, calibration.prior)
    told = [f"{_CALIBRATION}{name}:{':'.join(map(repr, numbers))}"]
    if spread is not None:
        edges, counts = (",".join(map(repr, each)) for each in (spread.edges, spread.counts))
        told.append(f"{_SCORES}{name}:{edges}:{counts}")
    return told


@dataclass(frozen=True, slots=True)
class Weights:
    """What answers under the names in use: `model` writes, `adapter` (None: the model) scores."""

    model: str
    adapter: str | None
    identity: EngineIdentity
    max_tokens: int

    @property
    def scorer(self) -> str:
        """The name to ask for scores."""
        return self.adapter or self.model

    @property
    def is_merged(self) -> bool:
        """Whether the model is a merged checkpoint, which writes no texts."""
        return self.adapter is None and bool(self.identity.adapter)


class ModelList:
    """One server's `/v1/models`, read."""

    def __init__(self, url: str, listing: Any) -> None:
        """EngineUnavailable if `listing` is not what a vLLM server says."""
        self._url = url
        try:
            entries = {str(entry["id"]): dict(entry) for entry in listing["data"]}
            self._bases = [
                name
                for name, entry in entries.items()
                if not entry.get("parent") and not name.startswith(_LABEL)
            ]
            self._max_tokens = int(entries[self._bases[0]]["max_model_len"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineUnavailable(
                f"{url}/v1/models is not answered as a vLLM server does ({error!r}); give the "
                "address of one, without a path"
            ) from error
        self._adapters = [name for name, entry in entries.items() if entry.get("parent")]
        self._labels = frozenset(name for name in entries if name.startswith(_LABEL))
        self._roots = {
            name: str(entry.get("root") or name)
            for name, entry in entries.items()
            if name not in self._labels
        }

    def choose(self, model: str, adapter: str | None) -> Weights:
        """The weights under these names; AS_SERVED stands for the one that is served.

        Reads checkpoint folders of a server without labels. Raises ModelUnusable if the server has
        them not, ArtifactMismatch if the adapter belongs to other definitions or another base.
        """
        model = self._bases[0] if model == AS_SERVED else model
        if model not in self._bases:
            raise ModelUnusable(
                f"the server at {self._url} serves {sorted(self._bases)}, not {model!r}; name one "
                "of these, or start it with `msr serve-model --model DIR --name NAME`"
            )
        adapter = self._only_adapter() if adapter == AS_SERVED else adapter
        if adapter is not None and adapter not in self._adapters:
            raise ModelUnusable(
                f"the server at {self._url} serves the adapters {sorted(self._adapters)}, not "
                f"{adapter!r}; name one of these, or start it with `msr serve-model --adapter "
                "NAME=DIR`"
            )
        return Weights(model, adapter, self._identify(model, adapter), self._max_tokens)

    def names_adapter(self, name: str) -> bool:
        """Whether it serves an adapter under this name."""
        return name in self._adapters

    def name_of(self, digest: str) -> str | None:
        """Under which name it serves the adapter of this fingerprint, by its labels."""
        named = (label.removeprefix(_ADAPTER).rpartition(":")[::2] for label in self._labels)
        served = (name for name, found in named if found == digest and name in self._adapters)
        return min(served, default=None)

    def describe(self, weights: Weights) -> str:
        """All that the server tells of these weights; it changes if they do. Reads no folder."""
        roots = [self._roots.get(name) for name in (weights.model, weights.adapter) if name]
        name = weights.adapter or ""
        own = (f"{_ADAPTER}{name}:", f"{_CALIBRATION}{name}:", f"{_SCORES}{name}:")
        told = [
            each
            for each in self._labels
            if not each.startswith((_ADAPTER, _CALIBRATION, _SCORES)) or each.startswith(own)
        ]
        return json.dumps([roots, sorted(told), self._max_tokens])

    def _only_adapter(self) -> str | None:
        """Of those that it was started with: others come and go."""
        own = [name for name in self._adapters if not _LOADED_AT_RUN_TIME.fullmatch(name)]
        if len(own) > 1:
            raise ModelUnusable(
                f"the server at {self._url} serves the adapters {sorted(own)}; name the one to "
                "use, or `none`"
            )
        return own[0] if own else None

    def _identify(self, model: str, adapter: str | None) -> EngineIdentity:
        merged = self._label(_MERGED)
        base = self._label(_MODEL)
        if base is None:
            root = self._roots[model]
            from_root = identify(root) if _is_readable(root) else EngineIdentity(root, "")
            base, merged = from_root.model, from_root.adapter
        digest = merged or ""
        if adapter is not None:
            digest = self._label(f"{_ADAPTER}{adapter}:") or _adapter_digest(self._roots[adapter])
        if not digest:
            return EngineIdentity(base, "")
        root = self._roots[adapter or model]
        self._require_servable(root, base)
        name = adapter or ""
        return EngineIdentity(base, digest, self._calibration(name, root), self._scores(name, root))

    def _calibration(self, name: str, root: str) -> Calibration:
        """Of the adapter of this name, or of the merged checkpoint (""); `root` holds it."""
        told = self._label(f"{_CALIBRATION}{name}:")
        if told is None:
            has_manifest = _is_readable(root) and (Path(root) / MANIFEST).is_file()
            return read_adapter_manifest(root).correction if has_manifest else NOT_CALIBRATED
        try:
            slope, intercept, prior = told.split(":")
            known = None if prior == "None" else float(prior)
            return Calibration(float(slope), float(intercept), known)
        except ValueError as error:
            raise ModelUnusable(
                f"the server at {self._url} tells the calibration {told!r}, which this version "
                "cannot read; start it with this version of `msr serve-model`"
            ) from error

    def _scores(self, name: str, root: str) -> ScoreHistogram | None:
        """Of the same; None where nobody tells."""
        told = self._label(f"{_SCORES}{name}:")
        if told is None:
            has_manifest = _is_readable(root) and (Path(root) / MANIFEST).is_file()
            return read_adapter_manifest(root).score_histogram if has_manifest else None
        try:
            edges, counts = (filter(None, each.split(",")) for each in told.split(":"))
            return ScoreHistogram(tuple(map(float, edges)), tuple(map(int, counts)))
        except ValueError as error:
            raise ModelUnusable(
                f"the server at {self._url} tells the scores {told!r}, which this version cannot "
                "read; start it with this version of `msr serve-model`"
            ) from error

    def _require_servable(self, root: str, base: str) -> None:
        """`root` holds an adapter or a merged checkpoint."""
        definition = self._label(_DEFINITION)
        current = fingerprint(current_definition())
        if definition not in (None, current):
            raise ArtifactMismatch(
                f"the server at {self._url} was started for definitions {definition}, this version "
                f"has {current}: prompts or answers differ; start the server "
                "with this version and an adapter that it trained"
            )
        if _is_readable(root) and (Path(root) / MANIFEST).is_file():
            manifest = read_adapter_manifest(root) if is_merged(root) else read_adapter(root)
            require_servable(manifest, model=base)

    def _label(self, prefix: str) -> str | None:
        found = [name for name in self._labels if name.startswith(prefix)]
        return found[0].removeprefix(prefix) if found else None


def _adapter_digest(root: str) -> str:
    return fingerprint_checkpoint(root) if _is_readable(root) else root


def _is_readable(root: str) -> bool:
    # A relative path is relative to where the server was started; a hub name looks like one.
    return Path(root).is_absolute() and Path(root).is_dir() and os.access(root, os.R_OK | os.X_OK)
