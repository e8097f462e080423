"""Texts that do not vary are a problem, and a sample shows images beside their texts."""

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from services.batch import build_preferences, summarize_images
from services.core.errors import ArtifactMissing
from services.core.images import blank_image
from services.doctor.findings import Finding
from services.doctor.texts import SampledItem, check_model, check_sample, check_texts
from services.engines.contract import EngineIdentity
from services.engines.models.model_card import ModelCard
from tests.artifact_builders import EchoEngine, write_interactions, write_items

TITLES = {f"i{k:02d}": f"title {k}" for k in range(60)}


class OneText(EchoEngine):
    """Writes the same about everything."""

    async def generate(self, *_: object) -> str:
        return "A gray tree; in flat style."


async def a_catalogue(data: str, engine: EchoEngine) -> None:
    write_items(data, TITLES, images={"i00": blank_image(8)})
    write_interactions(data, {f"u{k}": [f"i{k:02d}", f"i{k + 1:02d}"] for k in range(59)})
    await summarize_images.run(data, engine)
    await build_preferences.run(data, engine, cut="none")


def as_older_manifests(data: Path) -> None:
    for manifest in data.glob("*/manifest.json"):
        content = json.loads(manifest.read_text())
        content.pop("texts", None)
        manifest.write_text(json.dumps(content))


def look(data: str, num_items: int) -> tuple[list[Finding], list[SampledItem]]:
    sampled: list[SampledItem] = []
    return list(check_sample(data, num_items, sampled)), sampled


async def test_texts_that_vary_are_well_and_counted(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())

    (found,) = check_texts(str(tmp_path))

    assert found.status == "ok"
    assert found.found == "60 summaries, 60 distinct; 59 preferences, 59 distinct."


async def test_texts_that_do_not_vary_are_a_problem_each_with_what_to_do(tmp_path: Path):
    await a_catalogue(str(tmp_path), OneText())

    found = list(check_texts(str(tmp_path)))

    assert [each.status for each in found] == ["problem", "problem"]
    assert found[0].found.startswith("60 of 60 summaries are the same text")
    assert found[0].remedy.startswith("Summarize them with a published model (docs/gpu.md)")


async def test_an_artifact_of_an_older_version_is_counted_from_its_rows(tmp_path: Path):
    await a_catalogue(str(tmp_path), OneText())
    as_older_manifests(tmp_path)

    assert [each.status for each in check_texts(str(tmp_path))] == ["problem", "problem"]


async def test_many_items_without_a_text_are_a_note(tmp_path: Path):
    write_items(str(tmp_path), TITLES)
    await summarize_images.run(str(tmp_path), EchoEngine(refuse="title 1"))
    await summarize_images.run(str(tmp_path), EchoEngine())
    write_items(str(tmp_path), {f"i{k}": f"title {k % 2} {k}" for k in range(60)})
    await summarize_images.run(str(tmp_path), EchoEngine(refuse="title 1 "))

    found = list(check_texts(str(tmp_path)))

    assert [each.status for each in found] == ["note", "ok"]
    assert found[0].found.startswith("30 of 60 summaries are missing")


def test_without_texts_there_is_nothing_to_say(tmp_path: Path):
    assert list(check_texts(str(tmp_path / "nothing"))) == []


# --- the sample ----------------------------------------------------------------------------------


async def test_a_sample_is_spread_over_the_catalogue_and_the_same_every_time(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())

    (finding,), sampled = look(str(tmp_path), 3)
    page = (tmp_path / "doctor-sample.html").read_bytes()

    assert [item.item_id for item in sampled] == ["i10", "i30", "i50"]
    assert [item.summary for item in sampled] == ["title 10", "title 30", "title 50"]
    assert finding.found.endswith(f"{tmp_path}/doctor-sample.html")
    look(str(tmp_path), 3)
    assert (tmp_path / "doctor-sample.html").read_bytes() == page


async def test_a_sample_larger_than_the_catalogue_shows_all_of_it(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())

    _, sampled = look(str(tmp_path), 1000)

    assert [item.item_id for item in sampled] == list(TITLES)
    page = (tmp_path / "doctor-sample.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert page.count("no image") == 59


async def test_what_strangers_wrote_is_text_on_the_page(tmp_path: Path):
    title = "<script>alert(1)</script>"
    write_items(str(tmp_path), {"i<1>": title})
    await summarize_images.run(str(tmp_path), EchoEngine())

    look(str(tmp_path), 1)

    page = (tmp_path / "doctor-sample.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "i&lt;1&gt;" in page
    assert "default-src 'none'" in page


async def test_an_item_without_a_summary_is_shown_with_the_reason(tmp_path: Path):
    write_items(str(tmp_path), {"i1": "fox", "i2": "boat"})
    _, before = look(str(tmp_path), 2)
    await summarize_images.run(str(tmp_path), EchoEngine(refuse="boat"))

    _, after = look(str(tmp_path), 2)

    assert [item.fault for item in before] == ["run `msr summarize-images`"] * 2
    assert [item.fault for item in after] == ["", "will not take boat"]


def test_a_data_folder_that_is_a_url_gets_the_page_too():
    data = "memory://sampled"
    write_items(data, {"i1": "fox"})

    (finding,), _ = look(data, 5)

    assert finding.found.endswith("memory:///sampled/doctor-sample.html")
    with fsspec.open(f"{data}/doctor-sample.html", "rt") as page:
        assert "fox" in page.read()


def test_a_folder_without_a_catalogue_names_the_step_to_run(tmp_path: Path):
    with pytest.raises(ArtifactMissing, match="msr prepare-catalogue"):
        look(str(tmp_path), 5)


# --- the model -----------------------------------------------------------------------------------

TOY = ModelCard("Toy", ("ab" * 32,))


def of_model(data: str, identity: EngineIdentity, writer: EngineIdentity | None = None):
    return list(check_model(data, lambda: (identity, writer or identity), lambda: None))


async def test_the_model_that_wrote_the_texts_is_well_and_has_its_name(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())
    identity = replace(EchoEngine().identity, card=ModelCard("A model"))

    [found] = of_model(str(tmp_path), identity)

    assert (found.status, found.found) == ("ok", "the model is A model; it wrote the texts.")


async def test_texts_of_another_model_are_a_problem_as_the_start_of_a_server_is(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())

    [found] = of_model(str(tmp_path), EngineIdentity("another", "", card=ModelCard("Another")))

    assert found.status == "problem"
    assert "this process writes by Another (another)" in found.found
    assert "--accept-other-texts" in found.remedy


async def test_only_the_preferences_may_be_another_models(tmp_path: Path):
    await a_catalogue(str(tmp_path), EchoEngine())

    [found] = of_model(str(tmp_path), EchoEngine().identity, EngineIdentity("writer", ""))

    assert found.found.startswith("texts of another model: preferences are by")


def test_a_model_of_another_catalogue_is_a_problem_with_what_to_do(tmp_path: Path):
    write_items(str(tmp_path), TITLES)

    found = of_model(str(tmp_path), EngineIdentity("toy", "", card=TOY))

    assert [each.status for each in found] == ["problem", "ok"]
    assert "Toy knows its own catalogue only, not this one" in found[0].found
    assert found[0].remedy.startswith("Name a published model")


def test_before_there_is_a_catalogue_such_a_model_is_a_note(tmp_path: Path):
    found = of_model(str(tmp_path), EngineIdentity("toy", "", card=TOY))

    assert [each.status for each in found] == ["note", "ok"]


def test_where_no_server_answers_nothing_is_said_of_its_model(tmp_path: Path):
    assert not list(check_model(str(tmp_path), lambda: (None, None), lambda: None))
