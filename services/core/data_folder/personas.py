"""Personas: users of a data folder worth looking at, with a name that says why.

    data/
      personas.json    [{"user_id": "u42", "name": "From red outlines to blue stripes",
                         "about": "The first 4 interactions are mostly red outlines, ..."}]

The file is optional and may be written by hand. `msr demo` writes one.
"""

from collections.abc import Sequence
from typing import Annotated

import fsspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.core.data_folder.atomic_write import atomic_write
from services.core.errors import PersonasUnreadable
from services.core.wire.common import Id

FILE = "personas.json"
MAX_PERSONAS = 24


class Persona(BaseModel):
    """A user to look at, and what to see there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: Id
    name: str = Field(min_length=1, max_length=100)
    about: str = Field(max_length=400)


_PERSONAS: TypeAdapter[list[Persona]] = TypeAdapter(
    Annotated[list[Persona], Field(max_length=MAX_PERSONAS)]
)


def has_personas(data: str) -> bool:
    """Whether the data folder has personas."""
    filesystem, path = _locate(data)
    return bool(filesystem.exists(path))


def read_personas(data: str) -> list[Persona]:
    """The personas of a data folder (a path or an fsspec URL); an empty list without a file.

    PersonasUnreadable if the file is damaged.
    """
    filesystem, path = _locate(data)
    try:
        return _PERSONAS.validate_json(filesystem.cat_file(path))
    except FileNotFoundError:
        return []
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PersonasUnreadable(
            f"{path} is not a list of at most {MAX_PERSONAS} personas ({where or 'file'}: "
            f"{first['msg']}); correct it, or delete it"
        ) from error
    except OSError as error:
        raise PersonasUnreadable(
            f"{path} cannot be read ({error}); correct it, or delete it"
        ) from error


def write_personas(data: str, personas: Sequence[Persona]) -> None:
    """Write or replace the file in an existing data folder."""
    filesystem, path = _locate(data)
    atomic_write(path, _PERSONAS.dump_json(list(personas), indent=1) + b"\n", filesystem)


def _locate(data: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, base = fsspec.core.url_to_fs(data)
    return filesystem, f"{base.rstrip('/')}/{FILE}"
