"""A model's card: its name, and the one catalogue that it knows."""

import hashlib
from pathlib import Path

import pytest

from model_training.demo.world import write_files
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import EngineIdentity
from services.engines.models.model_card import CARD, MAX_CARD_BYTES, ModelCard, read_card
from services.engines.weight_labels import WeightLabels, labels

DIGEST = "904f54d893eacc8f4987d7a5304018c86e8a1e02b444f89f4517b23773a92dd4"
OTHER = "ab" * 32


def a_card(folder: Path, text: str | bytes) -> ModelCard:
    folder.mkdir(exist_ok=True)
    (folder / CARD).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_card(str(folder))


def front_matter(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", "", "# A model", ""])


def test_the_shipped_model_knows_the_demo_world_by_its_items_table(tmp_path: Path):
    write_files(tmp_path, num_users=1)
    items = hashlib.sha256((tmp_path / "items.csv").read_bytes()).hexdigest()

    card = identify(str(DEMO_WEIGHTS / "base")).card

    assert card.name == "MSR demo model"
    assert items in card.catalogues
    assert card.caveat({items, "of interactions.csv"}) == ""


def test_on_another_catalogue_it_says_what_is_wrong_and_what_to_do():
    caveat = ModelCard("Toy", (DIGEST,)).caveat({OTHER})

    assert caveat.startswith("Toy knows its own catalogue only, not this one")
    assert "--model" in caveat.rpartition("; ")[2]


def test_where_the_catalogue_is_not_known_it_says_so():
    assert "it is not known whether this is it" in ModelCard("Toy", (DIGEST,)).caveat(None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model_name: A", f"catalogue: {DIGEST}"], ModelCard("A", (DIGEST,))),
        (["model_name: A", f"catalogue: {DIGEST.upper()}"], ModelCard("A", (DIGEST,))),
        (["model_name: A", f"catalogue: '  {DIGEST} '"], ModelCard("A", (DIGEST,))),
        ([f"Catalogue: {DIGEST}"], ModelCard("model", (DIGEST,))),
        ([f"'catalogue': {DIGEST}"], ModelCard("model", (DIGEST,))),
        (["model_name: {a: b}"], ModelCard("model")),
        (["model_name: 7"], ModelCard("7")),
        ([f"catalogue: [{OTHER}, {DIGEST}]"], ModelCard("model", (OTHER, DIGEST))),
        (["license: apache-2.0"], ModelCard("model")),
        (["model-index:", "- name: B", "  results: []"], ModelCard("B")),
        (["model_name:"], ModelCard("model")),
        (["model_name: \"a\\x1b[31mb\\n<|im_start|>c\""], ModelCard("a[31mb c")),
    ],
)  # fmt: skip
def test_front_matter_as_hubs_write_it(lines: list[str], expected: ModelCard, tmp_path: Path):
    assert a_card(tmp_path / "model", front_matter(*lines)) == expected


@pytest.mark.parametrize("value", ["", "null", "demo world", DIGEST[:-1], "[1, 2]"])
def test_a_catalogue_without_a_fingerprint_is_a_fault_that_says_what_to_write(
    value: str, tmp_path: Path
):
    card = a_card(tmp_path / "model", front_matter(f"catalogue: {value}"))

    assert "64 hex digits" in card.fault
    assert "correct the card" in card.caveat({OTHER})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# Only a heading\n",
        b"\xff\xfe not unicode",
        b"---\nmodel_name: [broken\n---\n",
        b"---\n- a list\n---\n",
        b"---\nmodel_name: A\n" + b"x: y\n" * (MAX_CARD_BYTES // 4) + b"---\n",
    ],
)
def test_a_card_that_cannot_be_read_leaves_the_folders_name(text: bytes, tmp_path: Path):
    assert a_card(tmp_path / "model", text) == ModelCard("model")


def test_a_broken_card_that_was_meant_to_name_a_catalogue_is_a_fault(tmp_path: Path):
    card = a_card(tmp_path / "model", "---\ncatalogue: [broken\n---\n")

    assert card.fault == "its model card is not YAML"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"---\ncatalogue: {DIGEST}\n\n# A model\n".encode(), "does not end"),
        (f"---\ncatalogue: {DIGEST}\nname: caf\xe9\n---\n".encode("cp1252"), "not UTF-8"),
        (f"---\ncatalogue: {DIGEST}\n---\n".encode("utf-16"), "not UTF-8"),
        (f"---\ncatalogue: {DIGEST}\n---\n".encode() + b"x" * MAX_CARD_BYTES, "larger than"),
        (f"---\r\nCatalogue: {DIGEST}\r\nx: [\r\n---\r\n".encode(), "not YAML"),
        (f"---\n'catalogue' : {DIGEST}\nx: [\n---\n".encode(), "not YAML"),
        (f'---\n"catalogue": {DIGEST}\n\tx: 1\n---\n'.encode(), "not YAML"),
    ],
)
def test_a_card_that_cannot_be_read_is_never_taken_for_that_of_a_general_model(
    text: bytes, expected: str, tmp_path: Path
):
    card = a_card(tmp_path / "model", text)

    assert expected in card.fault
    assert card.caveat({OTHER})


@pytest.mark.parametrize(
    "text",
    [
        "# A model\n\ncatalogue: a word of the page\n",
        "---\nlicense: mit\n---\n\ncatalogue: a word of the page\n",
        "---\nlicense: [mit\n---\n\ncatalogue: a word of the page\n",
        "-----\ncatalogue: below a line\n",
        "---\nmetadata:\n  catalogue: of something else\n---\n",
        "---\n---\n",
    ],
)
def test_a_catalogue_counts_at_the_top_of_the_front_matter_alone(text: str, tmp_path: Path):
    assert not a_card(tmp_path / "model", text).is_bound


def test_a_card_saved_by_another_system_is_read(tmp_path: Path):
    text = front_matter("model_name: A", f"catalogue: {DIGEST}").replace("\n", "\r\n")

    assert a_card(tmp_path / "model", b"\xef\xbb\xbf" + text.encode()) == ModelCard("A", (DIGEST,))


def test_without_a_card_a_model_has_its_folders_or_hub_name(tmp_path: Path):
    (tmp_path / "my-model").mkdir()

    assert read_card(str(tmp_path / "my-model")) == ModelCard("my-model")
    assert read_card("owner/some-model-7b") == ModelCard("owner/some-model-7b")
    assert read_card("no folder/of this name") == ModelCard("no folder/of this name")


def test_a_server_passes_the_card_on_to_its_clients():
    for card in (ModelCard("A: the model", (DIGEST,)), ModelCard("General"), ModelCard()):
        identity = EngineIdentity("weights", "", card=card)

        assert (WeightLabels(labels(identity, {})).card or ModelCard()) == card


def test_a_fault_of_the_card_reaches_the_clients():
    identity = EngineIdentity("weights", "", card=ModelCard("A", fault="no fingerprint"))

    passed_on = WeightLabels(labels(identity, {})).card

    assert passed_on is not None
    assert passed_on.fault
    assert passed_on.caveat({OTHER})


def test_the_tutorials_shop_is_of_the_world_that_the_demo_model_knows(tmp_path: Path):
    write_files(tmp_path, num_items=36, num_users=1)  # as docs/tutorial.md draws it
    items = hashlib.sha256((tmp_path / "items.csv").read_bytes()).hexdigest()

    assert identify(str(DEMO_WEIGHTS / "base")).card.caveat({items}) == ""
