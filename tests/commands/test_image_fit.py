"""`msr prepare-catalogue --fit`: which options go together, and what is said if they do not."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.families.writers import write_writer
from model_training.demo.world import write_files
from services.cli import app
from services.core.artifacts import Artifact
from services.core.errors import InputError
from services.core.images import ImageForm


def prepare(folder: Path, data: Path, *options: str) -> str:
    """What is said on stderr."""
    arguments = ["prepare-catalogue", "--catalogue", str(folder), "--data", str(data), *options]
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_files(folder, num_items=30, num_users=20)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "owner/model"], "--model .* give it with --fit grid"),
        (["--fit", "grid"], "--fit grid needs the model .* --model"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, world: Path, tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        prepare(world, tmp_path, *options)


def test_a_side_of_nothing_is_refused_by_the_options_name(world: Path, tmp_path: Path):
    arguments = ["prepare-catalogue", "--catalogue", str(world), "--data", str(tmp_path)]

    result = CliRunner().invoke(app, [*arguments, "--image-size", "0"])

    assert result.exit_code == 2
    assert "--image-size" in result.output


def test_a_text_only_model_has_no_image_shapes(world: Path, tmp_path: Path):
    writer = write_writer("qwen-2.5-instruct", tmp_path / "writer")

    with pytest.raises(InputError, match="no image shapes are known; name a model of LLaVA-NeXT"):
        prepare(world, tmp_path / "data", "--fit", "grid", "--model", str(writer))


def test_a_strip_leaves_the_item_and_says_what_to_do(world: Path, tmp_path: Path):
    folder = tmp_path / "catalogue"
    write_files(folder, num_items=30, num_users=20)
    Image.new("RGB", (4000, 10), "red").save(folder / "covers" / "item-00003.png")

    said = prepare(folder, tmp_path / "data", "--min-item-interactions", "0")

    items = Artifact(str(tmp_path / "data"), "items")
    [fault] = items.manifest().quarantined
    assert fault["row"] == "cover of item-00003"
    assert "a strip" in fault["reason"]
    assert "crop it" in fault["reason"]
    assert f"left out: cover of item-00003: {fault['reason']}" in said
    rows = items.read(["item_id", "image"]).to_pylist()
    assert [row["image"] for row in rows if row["item_id"] == "item-00003"] == [None]


def test_squares_have_the_definition_that_they_always_had(world: Path, tmp_path: Path):
    prepare(world, tmp_path)

    definition = Artifact(str(tmp_path), "items").manifest().definition
    assert definition["image_size"] == 336
    assert not {"fit", "image_shapes", "image_shapes_of"} & set(definition)
    assert ImageForm.from_definition(definition) == ImageForm(336)
