"""A model's card: the name to show, and the catalogues that it knows, if it knows only these.

The card is the README.md of a checkpoint folder, with the front matter that model hubs use:

    ---
    model_name: MSR demo model
    catalogue: 904f54d893eacc8f4987d7a5304018c86e8a1e02b444f89f4517b23773a92dd4
    ---

`catalogue` is the SHA-256 of the items table that the model was made for (`sha256sum items.csv`),
or a list of several. A model with this key knows nothing else. General models have no such key, and
most published cards have no `model_name`: their name is that of their folder or on the hub.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.core.sanitize_text import clean_text

CARD = "README.md"
CATALOGUE_KEY = "catalogue"
# Front matter comes first, and cards on a hub are pages, not books.
MAX_CARD_BYTES = 1024 * 1024
MAX_NAME_CHARS = 80
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card says. `name` is "" if nothing names the model.

    `catalogues` are the digests of the only ones that the model knows; none for a general model.
    `fault` says why the card cannot be read, or why its catalogue is unknown; "" if all is well.
    """

    name: str = ""
    catalogues: tuple[str, ...] = ()
    fault: str = ""

    @property
    def is_bound(self) -> bool:
        """Whether the model was made for its own catalogue alone, named or not."""
        return bool(self.catalogues or self.fault)

    def caveat(self, catalogue: Collection[str] | None) -> str:
        """Why this model's texts and scores are not to be trusted on a catalogue, and what to do;
        "" if they are. `catalogue` has the digests of its files (an `items` manifest's inputs),
        None if they are not known.
        """
        if not self.is_bound or not set(self.catalogues).isdisjoint(catalogue or ()):
            return ""
        name = self.name or "this model"
        remedy = (
            "name a published model (--model, docs/gpu.md), or rank without a model (mode: cheap)"
        )
        if self.fault:
            return f"{name}: {self.fault}; correct the card, or {remedy}"
        if catalogue is None:
            known = "and it is not known whether this is it: its texts and scores may mean nothing"
        else:
            known = "not this one: what it writes and scores here means nothing"
        return f"{name} knows its own catalogue only, {known}; {remedy}"


NO_CARD = ModelCard()


def read_card(model: str) -> ModelCard:
    """The card of a checkpoint (folder or hub name); of a hub name only what was downloaded.

    A card that cannot be read is no error: the model works without it. `fault` says so if the card
    names a catalogue in a way that cannot be read.
    """
    folder = Path(model)
    if folder.is_dir():
        return _parse(folder / CARD, default_name=folder.resolve().name)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, CARD) if model.count("/") == 1 else None
    if not isinstance(found, str):
        return ModelCard(_clean(model))
    return _parse(Path(found), default_name=model)


def _parse(path: Path, *, default_name: str) -> ModelCard:
    name = _clean(default_name)
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            return ModelCard(name)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ModelCard(name)
    try:
        facts = metadata_load(path) or {}
    except (YAMLError, ValueError, RecursionError):
        # Of a broken card only this much matters: whether it was meant to name a catalogue.
        is_bound = re.search(rf"^\s*{CATALOGUE_KEY}\s*:", text, re.MULTILINE) is not None
        return ModelCard(name, fault="its model card is not YAML" if is_bound else "")
    return ModelCard(_name_in(facts) or name, *_catalogue_in(facts))


def _catalogue_in(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    if CATALOGUE_KEY not in facts:
        return (), ""
    value = facts[CATALOGUE_KEY]
    listed = value if isinstance(value, list) else [value]
    digests = [str(each).strip().lower() for each in listed]
    if digests and all(map(_DIGEST.fullmatch, digests)):
        return tuple(digests), ""
    return (), (
        f"its model card has no fingerprint under `{CATALOGUE_KEY}` (64 hex digits, as `sha256sum "
        "items.csv` prints them), so that it is not known which catalogue it knows"
    )


def _name_in(facts: Mapping[str, Any]) -> str:
    index = facts.get("model-index")
    entries = index if isinstance(index, list) else []
    named = [each.get("name") for each in entries if isinstance(each, dict)]
    return next((_clean(each) for each in (facts.get("model_name"), *named) if each), "")


def _clean(name: object) -> str:
    return clean_text(str(name), MAX_NAME_CHARS)
