"""Which artifacts of a data folder order candidates, and when they are taken up: on real ones."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from model_training.rankers import fit_ranker, fit_retrieval
from services.api.monitoring.metrics import Metrics
from services.api.recommend.ordering import Ordering
from services.api.recommend.ordering_reload import LiveOrdering, PublishedOrdering
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, ArtifactMissing
from services.retrieval.cheap_rankers import CheapRankers
from tests.api.builders import IDENTITY, a_ranker
from tests.artifact_builders import write_interactions, write_items

HISTORIES = {f"u{user}": [f"i{(3 * user + k * k) % 25}" for k in range(5)] for user in range(30)}


def write_world(data: str, *, num_users: int = 30) -> None:
    write_items(data, {f"i{number}": f"a thing of kind {number}" for number in range(25)})
    write_interactions(data, {f"u{user}": HISTORIES[f"u{user}"] for user in range(num_users)})


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data folder with cheap rankers, hardly trained, and no ranker."""
    folder = str(tmp_path)
    write_world(folder)
    fit_retrieval.run(folder, epochs=1)
    return folder


def lose_part(data: str) -> None:
    next(Path(data).glob("retrieval/*/part-00000.parquet")).unlink()


def fingerprint(data: str, name: str) -> str:
    return Artifact(data, name).manifest().fingerprint


def test_without_a_ranker_the_cheap_order_is_that_of_sasrec(data: str) -> None:
    ordering = PublishedOrdering(data, IDENTITY).load()
    assert (ordering.cheap_order, ordering.final_order) == ("sequential", "mllm")


async def test_a_ranker_is_used_once_it_is_fitted(data: str) -> None:
    await fit_ranker.run(data)
    ordering = PublishedOrdering(data, IDENTITY).load()
    assert ordering.ranker is not None
    assert ordering.ranker.fingerprint == fingerprint(data, "ranker")


async def test_rankers_of_whole_histories_are_preferred_and_take_the_same_weights(
    data: str,
) -> None:
    await fit_ranker.run(data)
    fit_retrieval.run(data, cut="none", epochs=1)
    ordering = PublishedOrdering(data, IDENTITY).load()
    assert ordering.rankers.fingerprint == fingerprint(data, "retrieval-whole")
    assert ordering.cheap_order == "fusion"


def test_rankers_of_whole_but_older_histories_are_not_preferred(data: str) -> None:
    fit_retrieval.run(data, cut="none", epochs=1)
    write_world(data, num_users=29)
    fit_retrieval.run(data, epochs=1)
    ordering = PublishedOrdering(data, IDENTITY).load()
    assert ordering.rankers.fingerprint == fingerprint(data, "retrieval")


async def test_weights_for_rankers_fitted_otherwise_are_refused(data: str) -> None:
    await fit_ranker.run(data)
    fit_retrieval.run(data, epochs=2)
    with pytest.raises(ArtifactMismatch, match="msr fit-ranker"):
        PublishedOrdering(data, IDENTITY).load()


def test_a_folder_without_rankers_says_which_step_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="msr fit-retrieval"):
        PublishedOrdering(str(tmp_path), IDENTITY).load()


async def test_rankers_fitted_otherwise_wait_for_weights_of_their_own(data: str) -> None:
    await fit_ranker.run(data)
    source = PublishedOrdering(data, IDENTITY)
    live = LiveOrdering(source.load(), Metrics(CollectorRegistry()), source)
    before = live.current.rankers.fingerprint
    fit_retrieval.run(data, epochs=2)
    await live.look()
    assert live.current.rankers.fingerprint == before
    assert live.refusal.startswith("ArtifactMismatch")
    await fit_ranker.run(data)
    await live.look()
    assert live.current.rankers.fingerprint == fingerprint(data, "retrieval")
    assert live.refusal == ""


def test_rankers_replaced_while_they_are_read_are_not_taken_up(data: str) -> None:
    class Replaced(PublishedOrdering):
        """Another process publishes between reading the manifests and the tables."""

        def fingerprints(self):
            found = super().fingerprints()
            fit_retrieval.run(data, epochs=2)
            return found

    with pytest.raises(ArtifactMissing, match="replaced while"):
        Replaced(data, IDENTITY).load()
    assert CheapRankers.load(data).fingerprint == fingerprint(data, "retrieval")


async def test_rankers_of_which_a_part_is_lost_are_refused_and_reported(data: str) -> None:
    source = PublishedOrdering(data, IDENTITY)
    live = LiveOrdering(source.load(), Metrics(CollectorRegistry()), source)
    fit_retrieval.run(data, epochs=2)
    lose_part(data)
    await live.look()
    assert "part-00000.parquet is gone" in live.refusal


# --- adapters that are chosen while the API runs --------------------------------------------------

SPRING = "0123456789abcdef"


async def test_weights_beside_those_that_serve_are_for_their_adapter(data: str) -> None:
    await fit_ranker.run(data)
    await fit_ranker.run(data, name=f"ranker-{SPRING}")
    ordering = PublishedOrdering(data, IDENTITY).load()
    assert list(ordering.for_adapters) == [SPRING]
    assert ordering.ranker is not None
    assert ordering.ranker.fingerprint == fingerprint(data, "ranker")


async def test_weights_of_a_protocol_are_nobodys_beside_them(data: str) -> None:
    await fit_ranker.run(data, name="ranker-chrono-era")
    assert PublishedOrdering(data, IDENTITY).load().for_adapters == {}


async def test_weights_that_are_put_beside_are_taken_up_once(data: str) -> None:
    await fit_ranker.run(data)
    source = PublishedOrdering(data, IDENTITY)
    live = LiveOrdering(source.load(), Metrics(CollectorRegistry()), source)
    await fit_ranker.run(data, name=f"ranker-{SPRING}")
    await live.look()
    taken = live.current
    assert list(taken.for_adapters) == [SPRING]
    await live.look()
    assert live.current is taken


async def test_weights_beside_for_rankers_fitted_otherwise_are_left_out(data: str) -> None:
    await fit_ranker.run(data, name=f"ranker-{SPRING}")
    fit_retrieval.run(data, epochs=2)
    await fit_ranker.run(data)
    source = PublishedOrdering(data, IDENTITY)
    live = LiveOrdering(source.load(), Metrics(CollectorRegistry()), source)
    await live.look()
    before = live.current
    await live.look()
    assert live.current is before
    assert (before.for_adapters, live.refusal) == ({}, "")


class OfAnother(PublishedOrdering):
    """A folder whose ranker weighs the margins of an adapter that is not the engine's."""

    def load(self):
        rankers = super().load().rankers
        ranker = a_ranker(retrieval=rankers.definition, adapter="others")
        return Ordering.of(rankers, ranker, IDENTITY, any_adapter=self.any_adapter())


async def test_weights_for_another_adapter_wait_until_one_may_be_chosen(
    data: str,
) -> None:
    chosen = False
    before = PublishedOrdering(data, IDENTITY).load()
    await fit_ranker.run(data)
    source = OfAnother(data, IDENTITY, any_adapter=lambda: chosen)
    live = LiveOrdering(before, Metrics(CollectorRegistry()), source)
    await live.look()
    assert live.refusal.startswith("ArtifactMismatch")
    chosen = True
    await live.look()
    assert live.refusal == ""
    assert live.by(replace(IDENTITY, adapter="others")).final_order == "mllm-fusion"
    assert live.by(IDENTITY).final_order == "mllm"
    assert live.by(IDENTITY).cheap_order == "fusion"
