from pathlib import Path
from typing import Any

import pyarrow as pa

from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.state.user_store import Store
from tests.api.builders import an_app, send

ROWS = pa.table({"item_id": ["i1", "i2"]})


async def steps(store: Store, data: Path) -> dict[str, Any]:
    answer = (await send(an_app(store, data=str(data)), "GET", "/progress")).json()
    assert answer["updates"] == {"num_waiting": 0, "lag_seconds": 0.0, "num_dead": 0}
    return {step["artifact"]: step for step in answer["steps"]}


async def test_a_finished_step_tells_its_counts_and_what_it_left_out(
    store: Store, tmp_path: Path
) -> None:
    writer = Artifact(str(tmp_path), "summaries").write(Recipe("summarize-images", {}, "a-model"))
    writer.write_shard(0, ROWS, [QuarantinedRow("i3", "the engine refused the prompt")])
    writer.finish(1, {"items": 2})
    assert (await steps(store, tmp_path))["summaries"] == {
        "artifact": "summaries", "command": "summarize-images", "state": "done",
        "model": "a-model", "model_name": "", "texts": None,
        "counts": {"items": 2}, "num_parts": 0, "num_quarantined": 1,
        "quarantined": [{"row": "i3", "reason": "the engine refused the prompt"}],
    }  # fmt: skip


async def test_a_step_that_runs_or_was_stopped_tells_how_many_parts_it_has(
    store: Store, tmp_path: Path
) -> None:
    writer = Artifact(str(tmp_path), "items").write(Recipe("prepare-catalogue", {}))
    for shard in range(3):
        writer.write_shard(shard, ROWS)
    found = await steps(store, tmp_path)
    assert (found["items"]["state"], found["items"]["num_parts"]) == ("under-way", 3)
    assert found["ranker"]["state"] == "missing"


async def test_a_manifest_of_another_version_spoils_no_other_step(
    store: Store, tmp_path: Path
) -> None:
    writer = Artifact(str(tmp_path), "items").write(Recipe("prepare-catalogue", {}))
    writer.write_shard(0, ROWS)
    (tmp_path / "items" / "manifest.json").write_text("{}")
    found = await steps(store, tmp_path)
    assert (found["items"]["state"], found["summaries"]["state"]) == ("unreadable", "missing")
    assert found["items"]["num_parts"] == 0
