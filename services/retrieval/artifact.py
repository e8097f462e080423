"""The result of `msr fit-retrieval`, in memory and as artifacts.

    retrieval            a row per item: id, counts, era, cell, neighbors, terms, vector
    retrieval-terms      a row per term of the titles: what it is worth
    retrieval-network    a row per tensor of SASRec, but for the items' vectors

The first names the others as its inputs and is finished last. Tables are read shard by shard into
arrays of their final size: a million items with vectors of 128 numbers take 1.2 GB, not twice that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from services.core.artifacts import Artifact, Recipe
from services.core.errors import ArtifactMismatch
from services.core.records import ItemId
from services.retrieval.item_knn import Neighbors
from services.retrieval.ranker import CheapRanker
from services.retrieval.rankers import RANKERS, optional_rankers
from services.retrieval.recency import Recency
from services.retrieval.sasrec import SasRec, SasRecShape, Sequential
from services.retrieval.tfidf import Titles

ITEMS_PER_SHARD = 10_000

_TERMS_SCHEMA = pa.schema([("term", pa.string()), ("idf", pa.float64())])
_NETWORK_SCHEMA = pa.schema(
    [("name", pa.string()), ("shape", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
)
_ITEMS_TABLE = "items.weight"


@dataclass(frozen=True)
class RetrievalModel:
    """Everything by item index; `cell_ends` are the ends of the cells (`vector_index.py`).

    `rankers` are those of `rankers.py` by name.
    """

    item_ids: Sequence[ItemId]
    popularity: NDArray[np.int64]
    trending: NDArray[np.float64]
    cell_ends: NDArray[np.int64]
    neighbors: Neighbors
    titles: Titles
    sequential: Sequential
    rankers: Mapping[str, CheapRanker]

    @property
    def was_taken(self) -> NDArray[np.bool_]:
        """Whether an item has interactions: (num_items,)."""
        recency = self.rankers[Recency.name]
        assert isinstance(recency, Recency)
        return ~np.isnan(recency.eras)

    def reordered(self, order: NDArray[np.int64], cell_ends: NDArray[np.int64]) -> "RetrievalModel":
        """The same with item `order[k]` at place k, and no `rankers`: fit them on the new order."""
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows = _matrix(self.neighbors, len(order))[order]
        neighbors = Neighbors(
            rows.indptr.astype(np.int64), place[rows.indices].astype(np.int32), rows.data
        )
        titles = Titles(self.titles.terms, self.titles.idf, self.titles.rows[order])
        return RetrievalModel(
            item_ids=[self.item_ids[item] for item in order.tolist()],
            popularity=self.popularity[order],
            trending=self.trending[order],
            cell_ends=cell_ends,
            neighbors=neighbors,
            titles=titles,
            sequential=with_vectors(self.sequential, self.sequential.item_vectors[order]),
            rankers={},
        )


def with_vectors(sequential: Sequential, vectors: NDArray[np.float32]) -> Sequential:
    """The same network over other item vectors (num_items, D)."""
    table = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    return _assemble(table, sequential.tensors(), sequential.settings)


def main_recipe(name: str, recipe: Recipe) -> Recipe:
    """The recipe of the items' table, given that of the whole."""
    others = {
        other: _part_recipe(recipe, other).fingerprint for other in (_terms(name), _network(name))
    }
    return replace(recipe, inputs={**recipe.inputs, **others})


def write(
    data: str, name: str, recipe: Recipe, fitted: RetrievalModel, counts: Mapping[str, int]
) -> None:
    """Publish the three tables under `name`; `definition["sequential"]["shape"]` of the recipe
    holds the fields of the network's shape.
    """
    sizes = {
        "items": len(fitted.item_ids),
        "neighbors": len(fitted.neighbors.indices),
        "title_terms": int(fitted.titles.rows.nnz),
    }
    terms = Artifact(data, _terms(name)).write(_part_recipe(recipe, _terms(name)))
    columns = sorted(fitted.titles.terms, key=fitted.titles.terms.__getitem__)
    terms.write_shard(0, pa.table([columns, fitted.titles.idf], schema=_TERMS_SCHEMA))
    network = Artifact(data, _network(name)).write(_part_recipe(recipe, _network(name)))
    tensors = fitted.sequential.tensors()
    rows = [
        {"name": key, "shape": list(tensors[key].shape), "values": tensors[key].ravel()}
        for key in sorted(tensors)
        if key != _ITEMS_TABLE
    ]
    network.write_shard(0, pa.Table.from_pylist(rows, _NETWORK_SCHEMA))
    items = Artifact(data, name).write(main_recipe(name, recipe))
    starts = range(0, sizes["items"], ITEMS_PER_SHARD)
    tables = [fitted.rankers[ranker.name].to_table() for ranker in RANKERS]
    for shard, start in enumerate(starts):
        stop = min(start + ITEMS_PER_SHARD, sizes["items"])
        items.write_shard(shard, _item_rows(fitted, tables, start, stop))
    # Published together, what names the others last: they disagree for a moment at most.
    terms.finish(1, {"terms": len(columns)})
    network.finish(1, {"tensors": len(rows)})
    items.finish(len(starts), {**counts, **sizes})


def is_whole(data: str, name: str) -> bool:
    """Whether all three tables are there and belong together.

    A writer that is killed while it publishes leaves tables of two recipes.
    """
    tables = [Artifact(data, table) for table in (name, _terms(name), _network(name))]
    if not all(table.is_whole() for table in tables):
        return False
    items, *others = tables
    inputs = items.manifest().inputs
    return all(inputs.get(other.name) == other.manifest().fingerprint for other in others)


def read(data: str, name: str) -> RetrievalModel:
    """The tables under `name`. ArtifactMissing if they were not made; ArtifactMismatch if they do
    not belong together, as for a moment while they are replaced: read again then.
    """
    artifact = Artifact(data, name)
    manifest = artifact.manifest()
    for other in (_terms(name), _network(name)):
        if Artifact(data, other).manifest().fingerprint != manifest.inputs.get(other):
            raise ArtifactMismatch(
                f"{Artifact(data, other).location} does not belong to {artifact.location}; run "
                "`msr fit-retrieval` again"
            )
    try:
        settings = manifest.definition["sequential"]["shape"]
        sizes = [manifest.counts[key] for key in ("items", "neighbors", "title_terms")]
        _require_rankers(manifest.definition)
    except (KeyError, TypeError) as error:
        raise ArtifactMismatch(
            f"{artifact.location} was made by another version; run `msr fit-retrieval` again"
        ) from error
    return _read_items(data, name, settings, *sizes)


def _require_rankers(definition: Mapping[str, Any]) -> None:
    if definition.get("rankers", []) != optional_rankers():
        raise KeyError("rankers")


def _read_items(
    data: str,
    name: str,
    settings: Mapping[str, int],
    num_items: int,
    num_neighbors: int,
    num_terms: int,
) -> RetrievalModel:
    item_ids: list[ItemId] = []
    popularity = np.empty(num_items, np.int64)
    trending = np.empty(num_items)
    cells = np.empty(num_items, np.int64)
    table = np.zeros((num_items + 1, settings["dim"]), np.float32)
    neighbors = _Rows(num_items, num_neighbors)
    titles = _Rows(num_items, num_terms)
    for shard in Artifact(data, name).shards():
        rows = slice(len(item_ids), len(item_ids) + shard.num_rows)
        item_ids += shard["item_id"].to_pylist()
        popularity[rows] = shard["popularity"].to_numpy()
        trending[rows] = shard["trending"].to_numpy()
        cells[rows] = shard["cell"].to_numpy()
        vectors = shard["vector"].combine_chunks().flatten().to_numpy()
        table[rows.start + 1 : rows.stop + 1] = vectors.reshape(shard.num_rows, -1)
        neighbors.add(shard["neighbors"], shard["weights"])
        titles.add(shard["terms"], shard["term_weights"])
    terms = Artifact(data, _terms(name)).read()
    columns = {term: column for column, term in enumerate(terms["term"].to_pylist())}
    shape = (num_items, len(columns))
    tensors = {
        row["name"]: np.asarray(row["values"], np.float32).reshape(row["shape"])
        for row in Artifact(data, _network(name)).read().to_pylist()
    }
    return RetrievalModel(
        item_ids=item_ids,
        popularity=popularity,
        trending=trending,
        cell_ends=np.cumsum(np.bincount(cells)),
        neighbors=Neighbors(neighbors.starts, neighbors.indices, neighbors.weights),
        titles=Titles(
            columns,
            terms["idf"].to_numpy(),
            sp.csr_array((titles.weights, titles.indices, titles.starts), shape),
        ),
        sequential=_assemble(table, tensors, settings),
        rankers={
            ranker.name: ranker.from_table(Artifact(data, name).read(ranker.columns))
            for ranker in RANKERS
        },
    )


class _Rows:
    """Compressed rows that are filled shard by shard."""

    def __init__(self, num_rows: int, num_values: int) -> None:
        self.starts = np.zeros(num_rows + 1, np.int64)
        self.indices = np.empty(num_values, np.int32)
        self.weights = np.empty(num_values, np.float32)
        self._num_rows = 0

    def add(self, indices: pa.ChunkedArray, weights: pa.ChunkedArray) -> None:
        lists = indices.combine_chunks()
        first = self.starts[self._num_rows]
        ends = first + np.cumsum(lists.value_lengths().to_numpy())
        self.starts[self._num_rows + 1 : self._num_rows + 1 + len(ends)] = ends
        self._num_rows += len(ends)
        values = slice(first, self.starts[self._num_rows])
        self.indices[values] = lists.flatten().to_numpy()
        self.weights[values] = weights.combine_chunks().flatten().to_numpy()


def _assemble(
    table: NDArray[np.float32],
    tensors: Mapping[str, NDArray[np.float32]],
    settings: Mapping[str, int],
) -> Sequential:
    """A network whose item table is `table` itself (num_items + 1, D), row 0 zeros: no copy."""
    with torch.device("meta"):  # nothing is drawn or held that would be replaced at once
        network = SasRec(len(table) - 1, SasRecShape(**settings))
    arrays = {**tensors, _ITEMS_TABLE: table}
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False).eval()
    return Sequential(table[1:], network)


def _item_rows(
    fitted: RetrievalModel, tables: Sequence[pa.Table], start: int, stop: int
) -> pa.Table:
    rows = slice(start, stop)
    vectors = fitted.sequential.item_vectors[rows]
    cells = np.searchsorted(fitted.cell_ends, np.arange(start, stop), side="right")
    columns = dict[str, Any](
        item_id=pa.array(fitted.item_ids[rows], pa.string()),
        popularity=pa.array(fitted.popularity[rows], pa.int64()),
        trending=pa.array(fitted.trending[rows], pa.float64()),
        **{
            column: table[column].slice(start, stop - start)
            for table in tables
            for column in table.column_names
        },
        cell=pa.array(cells, pa.int32()),
        vector=pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    )
    matrices = (
        ("neighbors", "weights", _matrix(fitted.neighbors, len(fitted.item_ids))),
        ("terms", "term_weights", fitted.titles.rows),
    )
    for indices, weights, matrix in matrices:
        columns |= zip((indices, weights), _lists(matrix, start, stop), strict=True)
    return pa.table(columns)


def _lists(matrix: sp.csr_array, start: int, stop: int) -> Iterator[pa.ListArray]:
    starts = matrix.indptr[start : stop + 1]
    offsets = pa.array((starts - starts[0]).astype(np.int32))
    kept = slice(int(starts[0]), int(starts[-1]))
    yield pa.ListArray.from_arrays(offsets, pa.array(matrix.indices[kept].astype(np.int32)))
    yield pa.ListArray.from_arrays(offsets, pa.array(matrix.data[kept].astype(np.float32)))


def _matrix(neighbors: Neighbors, num_items: int) -> sp.csr_array:
    return sp.csr_array(
        (neighbors.weights, neighbors.indices, neighbors.starts), (num_items, num_items)
    )


def _part_recipe(recipe: Recipe, name: str) -> Recipe:
    return replace(recipe, definition={**recipe.definition, "table": name})


def _terms(name: str) -> str:
    return f"{name}-terms"


def _network(name: str) -> str:
    return f"{name}-network"
