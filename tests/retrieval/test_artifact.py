"""What was fitted comes back as it was, in any order of the items."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.core.artifacts import Recipe
from services.core.errors import ArtifactMismatch
from services.retrieval import artifact as fitted
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.recency import Recency
from tests.retrieval.builders import ITEM_IDS, some_fitted, some_rankers

SHAPE = {"dim": 8, "num_layers": 1, "num_heads": 2, "max_history": 10}


def a_recipe(**definition: object) -> Recipe:
    return Recipe("fit-retrieval", {"sequential": {"shape": SHAPE}, **definition}, inputs={})


def test_rankers_that_were_written_score_as_before(tmp_path: Path):
    fitted.write(str(tmp_path), "retrieval", a_recipe(), some_fitted(), {"users": 9})

    read = CheapRankers.load(str(tmp_path))

    history, candidates = ["a", "c"], [*ITEM_IDS, "new"]
    before = some_rankers().score(history, candidates, {"new": "red cat"})
    assert read.score(history, candidates, {"new": "red cat"}) == before


def test_the_order_of_the_items_changes_no_score():
    order, ends = np.array([4, 0, 5, 2, 1, 3]), np.array([2, 6])
    before = some_fitted()
    eras = before.rankers["recency"].to_table()["era"].to_numpy()
    recency = Recency(eras[order])
    moved = replace(before.reordered(order, ends), rankers={"recency": recency})

    found = some_rankers(**vars(moved)).features(["a", "c"], ITEM_IDS)

    assert moved.item_ids == list("eafcbd")
    assert found == pytest.approx(some_rankers().features(["a", "c"], ITEM_IDS), abs=1e-5)


def test_the_definition_tells_how_it_was_fitted_but_not_by_which_cut(tmp_path: Path):
    def definition(name: str, **parts: object) -> str:
        fitted.write(str(tmp_path), name, a_recipe(**parts), some_fitted(), {})
        return CheapRankers.load(str(tmp_path), name).definition

    last = definition("retrieval", cut="last", num_neighbors=5)
    assert definition("retrieval-whole", cut="none", num_neighbors=5) == last
    assert definition("retrieval-whole", cut="none", num_neighbors=6) != last


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path):
    fitted.write(str(tmp_path), "retrieval", a_recipe(), some_fitted(), {})
    manifest = tmp_path / "retrieval-terms" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "fingerprint": "other"}))

    with pytest.raises(ArtifactMismatch, match="retrieval-terms does not belong to"):
        CheapRankers.load(str(tmp_path))


def test_an_artifact_of_an_older_version_is_refused(tmp_path: Path):
    fitted.write(str(tmp_path), "retrieval", a_recipe(), some_fitted(), {})
    manifest = tmp_path / "retrieval" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "definition": {}}))

    with pytest.raises(ArtifactMismatch, match="another version"):
        CheapRankers.load(str(tmp_path))


def test_tables_of_two_recipes_are_not_whole(tmp_path: Path):
    fitted.write(str(tmp_path), "retrieval", a_recipe(), some_fitted(), {})
    assert fitted.is_whole(str(tmp_path), "retrieval")
    newer = tmp_path / "newer"
    fitted.write(str(newer), "retrieval", a_recipe(rules=2), some_fitted(), {})
    shutil.rmtree(tmp_path / "retrieval-terms")
    shutil.copytree(newer / "retrieval-terms", tmp_path / "retrieval-terms")

    assert not fitted.is_whole(str(tmp_path), "retrieval")
