"""The step warns of a model whose texts do not vary: 20 of 20, and of none whose texts do."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
import structlog

from services.batch import build_preferences, summarize_images
from services.core.artifacts import Artifact, Manifest
from services.core.errors import EngineUnavailable
from services.core.prompts import GenerationLimits, Messages
from services.engines.contract import GeneratedText
from tests.artifact_builders import EchoEngine, write_interactions, write_items

# The text for the k-th of n prompts.
Writer = Callable[[int, int], str]


@dataclass
class WritingEngine(EchoEngine):
    """Writes by a function of the prompt's number."""

    writer: Writer
    num_prompts: int
    num_written: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        self.num_written += 1
        return GeneratedText(self.writer(self.num_written - 1, self.num_prompts))


def share(percent: int, text: str = "A gray tree in flat style.") -> Writer:
    """One text for so many in a hundred, others that are all different."""
    return lambda k, n: text if k * 100 < percent * n else f"picture number {k}"


SPELLINGS = ("A gray tree.", "a gray tree", " A  GRAY TREE! ", "A gray\ttree...")
UNVARYING: Mapping[str, tuple[int, Writer]] = {
    "one text": (400, lambda k, n: "Something unfamiliar."),
    "one text, 50 items": (50, lambda k, n: "Something."),
    "one text, 5,000 items": (5000, lambda k, n: "Something."),
    "one word": (60, lambda k, n: "tree"),
    "one punctuation mark": (60, lambda k, n: "."),
    "one long text": (60, lambda k, n: "very " * 400 + "gray"),
    "one text in another script": (60, lambda k, n: "一棵灰色的树。"),
    "two texts in turn": (100, lambda k, n: ("a tree", "a house")[k % 2]),
    "two texts, one after the other": (100, lambda k, n: ("a tree", "a house")[k >= n // 2]),
    "three texts": (100, lambda k, n: f"text {k % 3}"),
    "four texts": (100, lambda k, n: f"text {k % 4}"),
    "four spellings of one text": (100, lambda k, n: SPELLINGS[k % 4]),
    "case alone varies": (100, lambda k, n: ("A gray tree.", "A GRAY TREE.")[k % 2]),
    "21 % one text": (100, share(21)),
    "22 % one text, 50 items": (50, share(22)),
    "38 % one text": (633, share(38)),
    "90 % one text": (100, share(90)),
    "the varied ones come first": (100, lambda k, n: f"item {k}" if k < 75 else "a tree"),
    "varied white space": (100, lambda k, n: "a" + " " * (k + 1) + "tree"),
    "a common text and 29 rarer ones": (120, lambda k, n: f"t {k % 30}" if k % 3 else "a tree"),
}
VARYING: Mapping[str, tuple[int, Writer]] = {
    "all different": (400, lambda k, n: f"picture number {k}"),
    "all different, 50 items": (50, lambda k, n: f"picture number {k}"),
    "all different, 5,000 items": (5000, lambda k, n: f"picture number {k}"),
    "19 % one text": (100, share(19)),
    "20 % one text": (100, share(20)),
    "20 % one text, 50 items": (50, share(20)),
    "5 % one text": (100, share(5)),
    "five texts of exactly a fifth each": (100, lambda k, n: f"text {k % 5}"),
    "ten texts": (100, lambda k, n: f"text {k % 10}"),
    "half as many texts as items": (100, lambda k, n: f"text {k // 2}"),
    "25 % one text, 49 items": (49, share(25)),
    "one text, 49 items": (49, lambda k, n: "a tree"),
    "one text, 2 items": (2, lambda k, n: "a tree"),
    "one item": (1, lambda k, n: "a tree"),
    "one word differs": (100, lambda k, n: f"a tree in color {k} in flat style"),
    "the last word differs": (100, lambda k, n: f"a tree in flat style, number {k}"),
    "the first word differs": (100, lambda k, n: f"{k} trees"),
    "single characters": (100, lambda k, n: chr(0x4E00 + k)),
    "accents differ": (60, lambda k, n: "caf" + chr(0xE0 + k % 30) + str(k // 10)),
    "punctuation inside differs": (60, lambda k, n: f"a{'-' * (k + 1)}b"),
}


async def run_step(data: str, num_items: int, writer: Writer) -> list[str]:
    """The warnings of step 2."""
    write_items(data, {f"i{k}": f"title {k}" for k in range(num_items)})
    with structlog.testing.capture_logs() as logs:
        await summarize_images.run(data, WritingEngine(writer, num_items))
    return [each["reason"] for each in logs if each["event"] == "texts_do_not_vary"]


@pytest.mark.parametrize("name", UNVARYING)
async def test_a_model_whose_texts_do_not_vary_is_warned_of(name: str, tmp_path: Path):
    (warning,) = await run_step(str(tmp_path), *UNVARYING[name])

    assert warning.rpartition("; ")[2].startswith("summarize them with a published model")


@pytest.mark.parametrize("name", VARYING)
async def test_a_model_whose_texts_vary_is_not(name: str, tmp_path: Path):
    assert await run_step(str(tmp_path), *VARYING[name]) == []


def test_there_are_twenty_of_each():
    assert (len(UNVARYING), len(VARYING)) == (20, 20)


async def test_items_of_one_title_and_no_image_may_have_one_text(tmp_path: Path):
    write_items(str(tmp_path), {f"i{k}": "Poster" if k < 200 else f"t{k}" for k in range(260)})

    counts = await summarize_images.run(str(tmp_path), EchoEngine())

    assert (counts["texts"]["num_texts"], counts["texts"]["warning"]) == (61, "")


async def test_a_finished_step_warns_again_and_its_manifest_says_it(tmp_path: Path):
    data = str(tmp_path)
    await run_step(data, 60, share(50))

    with structlog.testing.capture_logs() as logs:
        counts = await summarize_images.run(data, EchoEngine())

    assert [each["log_level"] for each in logs] == ["warning"]
    assert counts["texts"]["num_most_frequent"] == 30
    written = Artifact(data, "summaries").manifest().texts
    assert written == {name: value for name, value in counts["texts"].items() if name != "warning"}


# --- preferences ---------------------------------------------------------------------------------


async def preferences_of(data: str, histories: Mapping[str, list[str]], writer: Writer) -> str:
    """The warning of step 3; items are described well."""
    items = {item_id for history in histories.values() for item_id in history}
    write_items(data, {item_id: f"title {item_id}" for item_id in sorted(items)})
    write_interactions(data, histories)
    await summarize_images.run(data, EchoEngine())
    engine = WritingEngine(writer, len(histories))
    counts = await build_preferences.run(data, engine, cut="none")
    warning: str = counts["texts"]["warning"]
    return warning


async def test_users_of_different_histories_with_one_text_are_warned_of(tmp_path: Path):
    histories = {f"u{k}": [f"i{k}", f"i{k + 1}"] for k in range(60)}

    warning = await preferences_of(str(tmp_path), histories, lambda k, n: "Likes trees.")

    assert warning.startswith("60 of 60 preferences are the same text: this")


async def test_no_log_holds_what_is_written_about_users(tmp_path: Path):
    histories = {f"u{k}": [f"i{k}", f"i{k + 1}"] for k in range(60)}

    with structlog.testing.capture_logs() as logs:
        await preferences_of(str(tmp_path), histories, lambda k, n: "Likes trees.")

    assert [each["event"] for each in logs] == ["texts_do_not_vary"]
    assert "trees" not in str(logs)


async def test_users_of_one_history_have_one_text_by_design(tmp_path: Path):
    new = {f"new{k}": ["i0"] for k in range(200)}
    others = {f"u{k}": [f"i{k}", f"i{k + 1}"] for k in range(60)}

    assert await preferences_of(str(tmp_path), {**new, **others}, lambda k, n: f"likes {k}") == ""


async def test_many_users_of_one_history_do_not_hide_that_the_others_have_one_text(tmp_path: Path):
    new = {f"new{k}": [f"i{k % 2}"] for k in range(300)}
    others = {f"u{k}": [f"i{k}", f"i{k + 1}"] for k in range(60)}

    warning = await preferences_of(str(tmp_path), {**new, **others}, lambda k, n: "likes trees")

    assert warning.startswith("62 of 62 preferences")


async def test_a_history_too_short_for_its_cut_is_no_empty_text(tmp_path: Path):
    data = str(tmp_path)
    write_items(data, {"i1": "fox", "i2": "boat"})
    write_interactions(data, {"short": ["i1"], "long": ["i1", "i2"]})
    await summarize_images.run(data, EchoEngine())

    counts = await build_preferences.run(data, EchoEngine(), cut="last")

    assert (counts["quarantined"], counts["texts"]["num_empty"]) == (1, 0)


# --- texts that the limit ended, and artifacts of an older version -------------------------------


class CutEngine(EchoEngine):
    """The limit ends texts about what is named `long`."""

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        text = await super().generate(messages, limits)
        return GeneratedText(text, hit_limit="long" in text)


async def test_the_artifacts_say_which_texts_the_limit_ended(tmp_path: Path):
    data = str(tmp_path)
    write_items(data, {"i1": "fox", "i2": "a long boat"})
    write_interactions(data, {"u1": ["i1", "i2"], "u2": ["i1"]})

    summaries = await summarize_images.run(data, CutEngine())
    preferences = await build_preferences.run(data, CutEngine(), cut="none")

    assert Artifact(data, "summaries").read()["hit_limit"].to_pylist() == [False, True]
    assert Artifact(data, "preferences-whole").read()["hit_limits"].to_pylist() == [[True], [False]]
    assert (summaries["texts"]["num_cut"], preferences["texts"]["num_cut"]) == (1, 1)


async def test_reused_texts_keep_what_is_known_so_equal_recipes_give_equal_bytes(tmp_path: Path):
    grown, fresh = str(tmp_path / "grown"), str(tmp_path / "fresh")
    titles = {"i1": "fox", "i2": "a long boat", "i3": "tree", "i4": "lamp"}
    for data, history in (
        (grown, ["i1", "i2", "i3"]),
        (fresh, list(titles)),
        (grown, list(titles)),
    ):
        write_items(data, titles)
        write_interactions(data, {"u1": history})
        await summarize_images.run(data, CutEngine())
        await build_preferences.run(data, CutEngine(), cut="none")

    for name in ("summaries", "preferences-whole"):
        assert part(grown, name).read_bytes() == part(fresh, name).read_bytes()


def part(data: str, name: str, shard: int = 0) -> Path:
    return next(Path(data, name).glob(f"*/part-{shard:05d}.parquet"))


def without_columns(data: str, name: str, *columns: str) -> None:
    """Take away columns that older versions did not write."""
    for path in Path(data, name).glob("*/part-*.parquet"):
        pa.parquet.write_table(pa.parquet.read_table(path).drop_columns(list(columns)), path)


def as_an_older_version_wrote(data: str, name: str, *columns: str, finished: bool = True) -> None:
    """Take away what older versions did not write, and the manifest if it was not finished."""
    without_columns(data, name, *columns)
    written = Path(data, name, "manifest.json")
    content = Artifact(data, name).manifest().content()
    del content["texts"]
    written.unlink()
    if finished:
        written.write_text(json.dumps(content))


async def test_an_artifact_of_an_older_version_is_read_and_counted(tmp_path: Path):
    data = str(tmp_path)
    await run_step(data, 60, share(50))
    as_an_older_version_wrote(data, "summaries", "hit_limit")

    counts = await summarize_images.run(data, EchoEngine())

    assert Artifact(data, "summaries").manifest().texts is None
    assert (counts["texts"]["num_most_frequent"], counts["texts"]["num_cut"]) == (30, 0)


async def test_a_run_of_an_older_version_is_finished(tmp_path: Path):
    data = str(tmp_path)
    write_items(data, {f"i{k}": f"title {k}" for k in range(6)})
    write_interactions(data, {f"u{k}": ["i1", f"i{k}"] for k in range(6)})
    await summarize_images.run(data, EchoEngine(), shard_size=2)
    as_an_older_version_wrote(data, "summaries", "hit_limit", finished=False)
    part(data, "summaries", 2).unlink()

    counts = await summarize_images.run(data, EchoEngine(), shard_size=2)

    assert (counts["summaries"], counts["texts"]["num_texts"]) == (6, 6)
    flags = Artifact(data, "summaries").read()["hit_limit"].to_pylist()
    assert flags == [None, None, None, None, False, False]
    await build_preferences.run(data, EchoEngine(), cut="none")
    as_an_older_version_wrote(data, "preferences-whole", "hit_limits")
    write_interactions(data, {"u1": ["i1", "i1"], "u9": ["i2"]})
    assert (await build_preferences.run(data, EchoEngine(), cut="none"))["users"] == 2


async def test_waves_of_an_older_version_are_gone_on_from(tmp_path: Path):
    data = str(tmp_path)
    write_items(data, {f"i{k}": f"title {k}" for k in range(6)})
    write_interactions(data, {"u1": [f"i{k}" for k in range(6)], "u2": ["i5", "i4", "i3", "i2"]})
    await summarize_images.run(data, EchoEngine())
    with pytest.raises(EngineUnavailable):
        await build_preferences.run(data, EchoEngine(fail_after=2), cut="none")
    without_columns(data, "preferences-whole-waves", "hit_limit")

    counts = await build_preferences.run(data, EchoEngine(), cut="none")

    assert (counts["users"], counts["texts"]["num_cut"]) == (2, 0)
    flags = Artifact(data, "preferences-whole").read()["hit_limits"].to_pylist()
    assert flags == [[None, False], [None, False]]


def test_the_manifest_of_a_step_without_texts_has_no_field_for_them(tmp_path: Path):
    write_items(str(tmp_path), {"i1": "fox"})

    written = (tmp_path / "items" / "manifest.json").read_text()

    assert "texts" not in json.loads(written)
    assert Manifest(**json.loads(written)).texts is None
