"""Draws tokens so that each row of a batch depends on its own seed alone.

transformers draws a whole batch from one generator, so that a text would depend on what else is in
the batch. Here each row has a generator; the drawn token is the only one left to the greedy choice.
"""

from collections.abc import Sequence

import torch

from services.core.prompts import Sampling


class SeededSampling:
    """Temperature and top-p for each row by its own generator: a logits processor for one batch."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        """`seeds`: one a row, in order."""
        self._sampling = sampling
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V): all but the drawn token of each row become -inf."""
        scaled = scores.float() / self._sampling.temperature
        ranked, order = scaled.sort(dim=-1, descending=True)
        shares = ranked.softmax(dim=-1)
        # The smallest set of the likeliest tokens whose shares reach top_p; the first one always.
        shares = shares.masked_fill(shares.cumsum(dim=-1) - shares >= self._sampling.top_p, 0.0)
        shares = shares.cpu()  # the same draws on every device
        places = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(shares, self._generators, strict=True)
        ]
        drawn = order.gather(-1, torch.stack(places).to(order.device))
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)
