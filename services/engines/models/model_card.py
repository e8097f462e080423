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
# For cards that cannot be read: what they begin with, up to its end if it has one.
_FRONT_MATTER = re.compile(r"[\s\ufeff\ufffd]*---\s*$(.*?)(?:^---|\Z)", re.DOTALL | re.MULTILINE)
_CATALOGUE = re.compile(rf"^\s*[\"']?{CATALOGUE_KEY}[\"']?\s*:", re.MULTILINE | re.IGNORECASE)


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
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, CARD) if model.count("/") == 1 else None
    except HFValidationError:  # neither a folder nor a hub's name: opening the model says so
        found = None
    if not isinstance(found, str):
        return ModelCard(_clean(model))
    return _parse(Path(found), default_name=model)


def _parse(path: Path, *, default_name: str) -> ModelCard:
    name = _clean(default_name)
    try:
        with path.open("rb") as file:
            start = file.read(MAX_CARD_BYTES + 1)
    except OSError:
        return ModelCard(name)
    facts, fault = _front_matter(path, len(start))
    if fault:
        # Of a card that cannot be read only this much matters: whether it was to name a catalogue.
        return ModelCard(name, fault=fault if _was_to_name_a_catalogue(start) else "")
    return ModelCard(_name_in(facts) or name, *_catalogue_in(facts))


def _front_matter(path: Path, num_bytes: int) -> tuple[Mapping[str, Any], str]:
    """Its entries, keys in small letters, and why it cannot be read; "" if it can."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    if num_bytes > MAX_CARD_BYTES:
        return {}, f"its model card is larger than {MAX_CARD_BYTES:,} bytes"
    try:
        facts = metadata_load(path)
    except UnicodeDecodeError:
        return {}, "its model card is not UTF-8"
    except (YAMLError, ValueError, RecursionError):
        return {}, "its model card is not YAML"
    if facts is None:
        return {}, "its model card has front matter that does not end (`---`)"
    return {str(key).lower(): value for key, value in facts.items()}, ""


def _was_to_name_a_catalogue(start: bytes) -> bool:
    # Without NULs, UTF-16 is read as well as is needed here.
    front = _FRONT_MATTER.match(start.replace(b"\0", b"").decode(errors="replace"))
    return front is not None and _CATALOGUE.search(front[1]) is not None


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
    names = (each for each in (facts.get("model_name"), *named) if isinstance(each, str | int))
    return next((_clean(each) for each in names if each), "")


def _clean(name: object) -> str:
    return clean_text(str(name), MAX_NAME_CHARS)
