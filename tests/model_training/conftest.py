"""The tiny base model, and a data folder ready for training."""

from pathlib import Path

import pytest

from model_training.data import build_examples
from tests.engines.conftest import checkpoint as checkpoint
from tests.model_training.builders import write_world


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data folder with items, interactions and preferences."""
    folder = str(tmp_path / "data")
    write_world(folder)
    return folder


@pytest.fixture
def data_with_examples(data: str) -> str:
    build_examples.run(data, num_negatives=2)
    return data
