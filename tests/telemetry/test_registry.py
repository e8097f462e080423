"""What is known of any process."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from services.telemetry.registry import memory_limit_bytes, new_registry


@pytest.mark.parametrize(("content", "limit"), [("1048576\n", 1_048_576), ("max\n", None)])
def test_a_containers_limit_counts_where_there_is_one(
    tmp_path: Path, content: str, limit: int | None
):
    file = tmp_path / "memory.max"
    machine = memory_limit_bytes(file)  # without a container
    file.write_text(content)

    assert memory_limit_bytes(file) == (limit or machine)
    assert machine > 1_048_576


def test_a_registry_tells_memory_and_its_limit():
    text = generate_latest(new_registry()).decode()

    assert "process_resident_memory_bytes " in text
    assert "msr_memory_limit_bytes " in text
