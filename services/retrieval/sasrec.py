"""SASRec: self-attention over the history predicts the next item (Kang and McAuley, ICDM 2018).

    score(c) = vector(c) . encode(history)

The network is the published one, with pre-norm blocks, GELU, and a softmax over the catalogue in
training (`model_training/rankers/fit_sasrec.py`) in place of one sampled negative. One definition
serves training and the API; scoring a history costs about a millisecond on one core.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class SasRecShape:
    """What the tensors' shapes follow from; `max_history` is how much of a history is looked at."""

    dim: int = 128
    num_layers: int = 2
    num_heads: int = 2
    max_history: int = 50


class SasRec(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """From items to a vector after each of them. Item 0 is padding: index i is row i + 1."""

    def __init__(self, num_items: int, shape: SasRecShape, *, dropout: float = 0.0) -> None:
        """Weights are drawn from torch's generator; `dropout` acts in training only."""
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(num_items + 1, shape.dim, padding_idx=0)
        self.positions = nn.Embedding(shape.max_history, shape.dim)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0] = 0
        self.blocks = nn.ModuleList(_Block(shape, dropout) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.dim)
        self.dropout = nn.Dropout(dropout)

    def item_table(self) -> Tensor:
        """The vector of each item, in histories and as candidates: (num_items + 1, D)."""
        return self.items.weight

    def forward(self, histories: Tensor) -> Tensor:
        """(B, T) rows of items, oldest first, padded with 0 on the right -> (B, T, D)."""
        positions = torch.arange(histories.shape[1], device=histories.device)
        # The embeddings are small; scaled up, they are not lost beside the positions.
        items = functional.embedding(histories, self.item_table())
        hidden = items * self.shape.dim**0.5 + self.positions(positions)
        hidden = self.dropout(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)


class _Block(nn.Module):  # type: ignore[misc]
    """Causal self-attention and a position-wise network, each normalized before and added."""

    def __init__(self, shape: SasRecShape, dropout: float) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.dropout = nn.Dropout(dropout)
        self.attention_norm = nn.LayerNorm(shape.dim)
        self.attention_in = nn.Linear(shape.dim, 3 * shape.dim)
        self.attention_out = nn.Linear(shape.dim, shape.dim)
        self.feed_norm = nn.LayerNorm(shape.dim)
        self.feed_in = nn.Linear(shape.dim, 4 * shape.dim)
        self.feed_out = nn.Linear(4 * shape.dim, shape.dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). Padding follows the items, so the causal mask hides it."""
        batch, length, dim = hidden.shape
        projected = self.attention_in(self.attention_norm(hidden))
        heads = projected.view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.dropout.p if self.training else 0.0
        )
        joined = attended.transpose(1, 2).reshape(batch, length, dim)
        hidden = hidden + self.dropout(self.attention_out(joined))
        wide = functional.gelu(self.feed_in(self.feed_norm(hidden)))
        return hidden + self.dropout(self.feed_out(self.dropout(wide)))


@dataclass(frozen=True)
class Sequential:
    """A trained SASRec, ready to score. Immutable, safe to share between threads.

    `item_vectors` is (num_items, D), by item index; their inner product with `encode(history)` is
    the log-probability that an item comes next, up to a constant of the history.
    """

    item_vectors: NDArray[np.float32]
    network: SasRec = field(repr=False)

    @classmethod
    def of(cls, network: SasRec) -> "Sequential":
        """The ranker of a network, which is set to evaluation."""
        network.eval()
        vectors = network.item_table().detach()[1:].numpy().astype(np.float32)
        return cls(vectors, network)

    def encode(self, history: Sequence[int]) -> NDArray[np.float32]:
        """The user's vector after a history of item indices, oldest first: (D,).

        ValueError for an empty history, which has no vector.
        """
        [vector] = self.encode_many([history])
        return np.asarray(vector, np.float32)

    def encode_many(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """`encode` of each history: (B, D)."""
        with torch.inference_mode():
            rows, lengths = pad_histories(histories, self.network.shape.max_history)
            hidden = self.network(rows)
            return np.asarray(hidden[torch.arange(len(histories)), lengths - 1], np.float32)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Everything that `from_tensors` needs beside the shape, by name."""
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray[np.float32]], settings: Mapping[str, int]
    ) -> "Sequential":
        """The ranker that `tensors` was called on; `settings` are the fields of its SasRecShape."""
        network = SasRec(len(tensors["items.weight"]) - 1, SasRecShape(**settings))
        network.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
        return cls.of(network)

    @property
    def settings(self) -> dict[str, int]:
        """The fields of the network's SasRecShape."""
        return asdict(self.network.shape)


def pad_histories(histories: Sequence[Sequence[int]], max_history: int) -> tuple[Tensor, Tensor]:
    """The latest `max_history` items of each history as rows (B, T) and their numbers (B,).

    Rows hold item index + 1, padded with 0 on the right. ValueError if a history is empty.
    """
    recent = [history[-max_history:] for history in histories]
    lengths = np.array([len(history) for history in recent], np.int64)
    if not len(lengths) or not lengths.all():
        raise ValueError("an empty history has no position to encode")
    rows = np.zeros((len(recent), int(lengths.max())), np.int64)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = np.concatenate(recent) + 1
    return torch.from_numpy(rows), torch.from_numpy(lengths)
