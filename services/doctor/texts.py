"""Checks what the model wrote: whether the texts vary, and a sample of them to look at.

The sample shows images beside their texts. It is one HTML file in the data folder, with everything
in it, so that it opens anywhere and asks no other host.
"""

import base64
import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import fsspec

from services.core.artifacts import SUMMARIES_BY, Artifact, absolute_root
from services.core.data_folder.atomic_write import atomic_write
from services.core.data_folder.steps import SERVED_PREFERENCES
from services.core.data_folder.text_writers import REMEDY, TextWriter, TextWriters
from services.core.errors import FolderNotWritable
from services.core.prompts import Sampling
from services.doctor.findings import Finding, note, ok, problem, stated
from services.engines.checkpoints import ADDS_SPECIAL_TOKENS
from services.engines.contract import EngineIdentity

SAMPLE_FILE = "doctor-sample.html"
_NO_SUMMARY = "no summary"
_PNG = b"\x89PNG"


def check_texts(data: str) -> Iterator[Finding]:
    """Do the summaries and the served preferences vary? Nothing if there are none."""
    described = []
    for names in (("summaries",), SERVED_PREFERENCES):
        artifact = next((a for name in names if (a := Artifact(data, name)).exists()), None)
        statistics = artifact.text_statistics() if artifact is not None else None
        if statistics is None:
            continue
        if warning := statistics.warning():
            yield stated(warning, problem)
        else:
            described.append(statistics.describe())
        for found in statistics.notes():
            yield stated(found, note)
    if described:
        yield ok(f"{'; '.join(described)}.")


def check_model(
    data: str,
    identify: Callable[[], tuple[EngineIdentity | None, EngineIdentity | None]],
    sampling: Callable[[], Sampling | None],
) -> Iterator[Finding]:
    """Does the model know this catalogue, and did it write the texts?

    `identify`: the model in use and that of the preferences, None if no server answers; `sampling`:
    of these.
    """
    identity, writer = identify()
    if identity is None or writer is None:
        return
    name, card, items = identity.name, identity.card, Artifact(data, "items")
    if items.exists():
        if caveat := card.caveat(items.manifest().inputs.values()):
            yield stated(caveat, problem)
    elif card.is_bound:
        yield note(
            f"the model is {name}, which knows its own catalogue only.",
            "For any other, name a published model with --model (docs/gpu.md).",
        )
    found = _writers(data)
    if found is None:
        yield ok(f"the model is {name}.")
        return
    own = TextWriters.by(
        replace(identity, model=_weights(identity.model)),
        replace(writer, model=_weights(writer.model)),
        sampling=sampling(),
    )
    if difference := own.difference(found):
        yield problem(f"texts of another model: {difference}.", f"{REMEDY[0].upper()}{REMEDY[1:]}.")
    else:
        yield ok(f"the model is {name}; it wrote the texts.")


def _writers(data: str) -> TextWriters | None:
    """Who wrote the texts of the data folder, by the weights alone; None without summaries."""
    summaries = _writer(data, "summaries")
    return None if summaries is None else TextWriters(summaries, _writer(data, *SERVED_PREFERENCES))


def _writer(data: str, *names: str) -> TextWriter | None:
    """Of the first of these artifacts that is finished."""
    artifact = next((a for name in names if (a := Artifact(data, name)).exists()), None)
    if artifact is None:
        return None
    manifest = artifact.manifest()
    definition = dict(manifest.definition)
    if SUMMARIES_BY in definition:
        definition[SUMMARIES_BY] = _weights(definition[SUMMARIES_BY])
    return replace(manifest, model=_weights(manifest.model), definition=definition).writer


def _weights(model: str) -> str:
    """A model's identity without how its prompts are encoded, which a server is not asked here."""
    return model.removesuffix(ADDS_SPECIAL_TOKENS)


@dataclass(frozen=True, slots=True)
class SampledItem:
    """An item with its image (None without one); `fault` says why it has no summary, else ""."""

    item_id: str
    title: str
    image: bytes | None
    summary: str
    fault: str


def check_sample(data: str, num_items: int, sampled: list[SampledItem]) -> Iterator[Finding]:
    """Write `num_items` items, spread over the catalogue, as a page; they are added to `sampled`.

    The same catalogue gives the same items. Problems if there is no catalogue, or if the data
    folder cannot be written.
    """
    sampled += _sample(data, num_items)
    filesystem, base = fsspec.core.url_to_fs(data)
    path = f"{base.rstrip('/')}/{SAMPLE_FILE}"
    try:
        atomic_write(path, _page(sampled).encode(), filesystem)
    except OSError as error:
        raise FolderNotWritable(
            f"cannot write {path} ({error}); make the data folder writable, or run without --sample"
        ) from error
    shown = f"{absolute_root(data).rstrip('/')}/{SAMPLE_FILE}".removeprefix("file://")
    yield ok(f"{len(sampled)} items, images beside their texts: {shown}")


def _sample(data: str, num_items: int) -> list[SampledItem]:
    """Items in the middles of equal parts of the catalogue, in its order."""
    items = Artifact(data, "items")
    num_all = items.manifest().counts["items"]
    number = min(num_items, num_all)
    rows = [(2 * k + 1) * num_all // (2 * number) for k in range(number)]
    found: list[dict[str, Any]] = []
    for table in items.shards(["item_id", "title", "image", "version"]):
        here = [row for row in rows if row < table.num_rows]
        found += table.take(here).to_pylist() if here else []
        rows = [row - table.num_rows for row in rows if row >= table.num_rows]
        if not rows:
            break
    written, reasons = _summaries(data, {row["version"] for row in found})
    return [
        SampledItem(
            item_id=row["item_id"],
            title=row["title"],
            image=row["image"],
            summary=written.get(row["version"], ""),
            fault=""
            if row["version"] in written
            else reasons.get(row["item_id"], "run `msr summarize-images`"),
        )
        for row in found
    ]


def _summaries(data: str, versions: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Summaries by the version of their item, and reasons of items without one by item id."""
    summaries = Artifact(data, "summaries")
    if not summaries.exists():
        return {}, {}
    written = {
        row["version"]: row["summary"]
        for table in summaries.shards(["version", "summary"])
        for row in table.to_pylist()
        if row["version"] in versions
    }
    return written, {row["row"]: row["reason"] for row in summaries.manifest().quarantined}


# --- the page ------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
ol { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr));
     list-style: none; padding: 0; }
li { border: 1px solid #bbb; border-radius: 8px; overflow: hidden; overflow-wrap: anywhere; }
img, .none { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #eee; }
.none { align-content: center; text-align: center; color: #555; }
div { padding: .6rem .9rem; } h2, p { font-size: inherit; margin: 0 0 .4rem; }
small { color: #555; } .fault { color: #a40000; }
"""


def _page(sampled: list[SampledItem]) -> str:
    # The policy lets nothing in but what is on the page, whatever a title holds.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Images beside their texts</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>Images beside their texts</h1>\n<p>Does each sentence say what is in its picture? If "
        "not, the model does not know these images.</p>\n<ol>\n"
        + "".join(map(_card, sampled))
        + "</ol>\n</body>\n</html>\n"
    )


def _card(item: SampledItem) -> str:
    text = f"<p>{html.escape(item.summary)}</p>"
    if item.fault:
        text = f'<p class="fault">{_NO_SUMMARY}: {html.escape(item.fault)}</p>'
    return (
        f"<li>{_picture(item.image)}<div><h2>{html.escape(item.title)}</h2>{text}"
        f"<small>{html.escape(item.item_id)}</small></div></li>\n"
    )


def _picture(image: bytes | None) -> str:
    if not image:
        return '<p class="none">no image</p>'
    kind = "png" if image.startswith(_PNG) else "jpeg"
    return f'<img alt="" src="data:image/{kind};base64,{base64.b64encode(image).decode()}">'
