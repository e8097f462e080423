"""A ranker is added by one module and one line of the list, and is then used everywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch
from services.retrieval.cheap_rankers import CheapRankers

# The line, before any other module reads the list.
ADD = """
from services.retrieval import rankers
from tests.model_training.rankers.last_taken import LastTaken
rankers.RANKERS = (*rankers.RANKERS, LastTaken)
"""
USE = """
import asyncio, json, sys
from model_training.evaluation import evaluate
from model_training.rankers import fit_ranker, fit_retrieval
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.fusion import Ranker

data = sys.argv[1]
fit_retrieval.run(data, epochs=1)
asyncio.run(fit_ranker.run(data))
loaded = CheapRankers.load(data)
history = loaded.item_ids[:2]
found = loaded.retrieve(history, limit=40, exclude=history)
evaluation = asyncio.run(evaluate.run(data, None, models=["random", "last-taken", "fusion"]))
print(json.dumps({
    "sources": sorted({each.source for each in found}),
    "values": [each.values[-1] for each in found],
    "weighed": Ranker.load(data).cheap.features[-1],
    "models": list(evaluation.models),
}))
"""


def test_an_added_ranker_is_fitted_proposes_and_is_weighed_and_evaluated(data: str):
    command = [sys.executable, "-c", ADD + USE, data]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    stored = Artifact(data, "retrieval").read(["last_place"])["last_place"].to_pylist()

    assert max(stored) >= 4
    assert "last-taken" in used["sources"]
    assert set(used["values"]) <= set(stored)
    assert used["weighed"] == "last-taken"
    assert used["models"] == ["random", "last-taken", "fusion"]
    with pytest.raises(ArtifactMismatch, match="msr fit-retrieval"):
        CheapRankers.load(data)  # without the line
