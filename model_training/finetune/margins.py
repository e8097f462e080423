"""Margins under the weights that are being trained, computed as in the engines.

They come from the logits of the answer tokens at the last position of the unanswered prompt.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from model_training.finetune.collation import PromptCollator
from model_training.finetune.distributed import num_processes, process_index
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import AnswerTokens, answer_margin


def answer_logits(
    model: Any, batch: Mapping[str, torch.Tensor], answers: AnswerTokens
) -> torch.Tensor:
    """The logits (B, 2) of Yes and No for a batch of `PromptCollator`, with their gradients."""
    logits = model(**batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()  # (B, V)
    found: torch.Tensor = logits[:, [answers.yes, answers.no]]
    return found


def row_margins(
    model: Any,
    collate: PromptCollator,
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[ItemId, Item],
    *,
    batch_size: int,
) -> list[float]:
    """The margin of every row (`item_id`, `preference`), in order, by the current weights.

    Processes share the rows, and each gets all margins. Sharded models need the same number of
    batches in every process, so a process with fewer rows repeats its first one.
    """
    own = list(range(process_index(), len(rows), num_processes()))
    size = math.ceil(len(rows) / num_processes())
    padded = [rows[number] for number in own + [0] * (size - len(own))]
    device = next(model.parameters()).device
    found: list[float] = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, size, batch_size):
            prompts = [
                scoring_messages(row["preference"], items[row["item_id"]])
                for row in padded[start : start + batch_size]
            ]
            batch = collate([{"prompts": prompts}])
            on_device = {name: values.to(device) for name, values in batch.items()}
            logits = answer_logits(model, on_device, collate.answers).tolist()
            found += [answer_margin(yes=yes, no=no) for yes, no in logits]
    model.train(was_training)
    margins = dict(zip(own, found, strict=False))  # without the repeated rows
    if num_processes() > 1:
        shares: list[Any] = [None] * num_processes()
        torch.distributed.all_gather_object(shares, margins)
        margins = {number: margin for share in shares for number, margin in share.items()}
    return [margins[number] for number in range(len(rows))]
