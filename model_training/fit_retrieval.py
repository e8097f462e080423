"""Step 4', `msr fit-retrieval`: popularity and item-kNN, the cheap rankers of the service.

Reads `items` and `interactions`; writes `retrieval`, a row per item: how many users took it, and
the items whose takers are most alike (cosine). Fitted on the whole interactions of training users
and on the histories, without the target items, of validation and test users; so the rankers may
stand beside the model in an evaluation. The same data give the same bytes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray

from model_training.inputs import read_histories, read_item_ids
from services.core.artifacts import Artifact, Recipe
from services.core.errors import ArtifactMismatch
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED, leave_last_out, split_users
from services.retrieval.popularity import count_popularity

ARTIFACT = "retrieval"
# On MicroLens-50k 200 neighbors cost 0.03 AUC against 1,000; most items have fewer than 1,000.
DEFAULT_NUM_NEIGHBORS = 1000
ITEMS_PER_SHARD = 10_000

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("item_index", pa.int32()),
        ("popularity", pa.int64()),
        ("neighbors", pa.list_(pa.int32())),
        ("weights", pa.list_(pa.float32())),
    ]
)


def run(data: str, *, num_neighbors: int = DEFAULT_NUM_NEIGHBORS) -> dict[str, int]:
    """Write the artifact `retrieval`; the counts of users, items, interactions and neighbors."""
    histories = read_histories(data)
    recipe = Recipe(
        step="fit-retrieval",
        definition={
            "method": "popularity, cosine item-kNN",
            "fitted_on": "all of training users; all but the last of validation and test users",
            "split_seed": SPLIT_SEED,
            "num_neighbors": num_neighbors,
            "items_per_shard": ITEMS_PER_SHARD,
        },
        inputs={
            "items": Artifact(data, "items").manifest().fingerprint,
            "interactions": histories.fingerprint,
        },
    )
    writer = Artifact(data, ARTIFACT).write(recipe)
    if writer.finished:
        return Artifact(data, ARTIFACT).manifest().counts

    item_ids = read_item_ids(data)
    fitted = _index_histories(visible_histories(histories.by_user), item_ids)
    popularity = count_popularity(fitted, len(item_ids))
    similarity = fit_neighbors(fitted, popularity, num_neighbors=num_neighbors)
    num_shards = -(-len(item_ids) // ITEMS_PER_SHARD)
    for shard in range(num_shards):
        rows = range(shard * ITEMS_PER_SHARD, min((shard + 1) * ITEMS_PER_SHARD, len(item_ids)))
        writer.write_shard(shard, _table(rows, item_ids, popularity, similarity))
    counts = {
        "users": len(fitted),
        "items": len(item_ids),
        "interactions": sum(map(len, fitted)),
        "neighbors": int(similarity.nnz),
    }
    return writer.finish(num_shards, counts).counts


def ensure(data: str) -> None:
    """Fit if there is no `retrieval` artifact of the interactions in the data folder."""
    artifact = Artifact(data, ARTIFACT)
    interactions = Artifact(data, "interactions").manifest().fingerprint
    if not artifact.exists() or artifact.manifest().inputs.get("interactions") != interactions:
        run(data)


def visible_histories(
    by_user: Mapping[UserId, Sequence[ItemId]],
) -> dict[UserId, Sequence[ItemId]]:
    """What a ranker may learn from: no target item of a validation or test user.

    Such a user with fewer than two interactions has no history, so gives nothing.
    """
    split = split_users(list(by_user))
    visible = {}
    for user_id, interactions in by_user.items():
        if split[user_id] == "train":
            visible[user_id] = interactions
        elif len(interactions) >= 2:
            visible[user_id] = leave_last_out(interactions)[0]
    return visible


def fit_neighbors(
    histories: Sequence[Sequence[int]], popularity: NDArray[np.int64], *, num_neighbors: int
) -> sp.csr_array:
    """Cosine between items' sets of takers, the `num_neighbors` highest of each row, an item's own
    left out: sparse (num_items, num_items), neighbors in a row most alike first.
    """
    num_items = len(popularity)
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate([np.asarray(history, np.int64) for history in histories])
    taken = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(histories), num_items))
    taken.data[:] = 1.0  # a user who took an item twice counts once
    scale = 1.0 / np.sqrt(np.maximum(popularity, 1))
    # One more than wanted: an item is its own nearest neighbor.
    model = ItemItemRecommender(K=min(num_neighbors + 1, num_items), num_threads=1)
    model.fit((taken @ sp.diags(scale)).tocsr(), show_progress=False)
    return _sorted_rows(model.similarity.tocsr())


def _sorted_rows(similarity: sp.csr_matrix) -> sp.csr_array:
    """Without the diagonal; in each row the most alike first, of equals the lower index."""
    entries = similarity.tocoo()
    kept = (entries.row != entries.col) & (entries.data > 0)
    rows, columns, weights = entries.row[kept], entries.col[kept], entries.data[kept]
    order = np.lexsort((columns, -weights, rows))
    starts = np.searchsorted(rows[order], np.arange(similarity.shape[0] + 1))
    return sp.csr_array(
        (weights[order].astype(np.float32), columns[order].astype(np.int32), starts),
        similarity.shape,
    )


def _index_histories(
    histories: Mapping[UserId, Sequence[ItemId]], item_ids: Sequence[ItemId]
) -> list[list[int]]:
    index = {item_id: number for number, item_id in enumerate(item_ids)}
    try:
        return [[index[item_id] for item_id in history] for history in histories.values()]
    except KeyError as error:
        raise ArtifactMismatch(
            f"the interactions name item {error.args[0]!r}, which the catalogue lacks; run "
            "`msr prepare-catalogue` again"
        ) from error


def _table(
    rows: range,
    item_ids: Sequence[ItemId],
    popularity: NDArray[np.int64],
    similarity: sp.csr_array,
) -> pa.Table:
    starts = similarity.indptr[rows.start : rows.stop + 1]
    kept = slice(int(starts[0]), int(starts[-1]))
    offsets = pa.array((starts - starts[0]).astype(np.int32))
    columns = [
        pa.array(item_ids[rows.start : rows.stop], pa.string()),
        pa.array(np.arange(rows.start, rows.stop, dtype=np.int32)),
        pa.array(popularity[rows.start : rows.stop]),
        pa.ListArray.from_arrays(offsets, pa.array(similarity.indices[kept], pa.int32())),
        pa.ListArray.from_arrays(offsets, pa.array(similarity.data[kept], pa.float32())),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
