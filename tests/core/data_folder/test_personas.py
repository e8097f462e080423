from pathlib import Path

import pytest

from services.core.data_folder.personas import (
    MAX_PERSONAS,
    Persona,
    has_personas,
    read_personas,
    write_personas,
)
from services.core.errors import PersonasUnreadable

ANN = Persona(user_id="ann", name="From foxes to owls", about="Begins with foxes.")


def test_what_was_written_is_read_again_in_its_order(tmp_path: Path) -> None:
    bea = ANN.model_copy(update={"user_id": "bea/1", "name": "Ö <b>"})
    write_personas(str(tmp_path), [bea, ANN])
    assert read_personas(str(tmp_path)) == [bea, ANN]


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_beside_them(tmp_path: Path) -> None:
    write_personas(str(tmp_path), [ANN])
    first = (tmp_path / "personas.json").read_bytes()
    write_personas(str(tmp_path), [ANN])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [first]


def test_a_data_folder_without_the_file_has_none(tmp_path: Path) -> None:
    assert not has_personas(str(tmp_path))
    assert read_personas(str(tmp_path / "nowhere")) == []


def test_a_data_folder_may_be_an_object_store() -> None:
    write_personas("memory://personas-of-tests", [ANN])
    assert read_personas("memory://personas-of-tests/") == [ANN]


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "{}",
        '[{"user_id": "ann", "name": "A"}]',
        '[{"user_id": "a\\u0000", "name": "A", "about": ""}]',
        '[{"user_id": "ann", "name": "A", "about": "", "colour": "red"}]',
        "[" + ",".join(['{"user_id": "ann", "name": "A", "about": ""}'] * (MAX_PERSONAS + 1)) + "]",
        "\udcff",
    ],
)
def test_a_damaged_file_is_reported_with_its_place_and_the_remedy(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "personas.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PersonasUnreadable, match="delete it") as told:
        read_personas(str(tmp_path))
    assert str(path) in str(told.value)


def test_a_folder_in_the_file_s_place_is_reported_too(tmp_path: Path) -> None:
    (tmp_path / "personas.json").mkdir()
    with pytest.raises(PersonasUnreadable, match="cannot be read"):
        read_personas(str(tmp_path))
