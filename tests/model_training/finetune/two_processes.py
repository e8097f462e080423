"""Run by `accelerate launch`: which items does each process train on, and then the training itself.

accelerate launch --cpu --num_processes 2 -m tests.model_training.finetune.two_processes DATA BASE
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from model_training.finetune import train
from model_training.finetune.distributed import process_index
from model_training.finetune.run_plan import plan_run
from model_training.finetune.stages import sft
from model_training.finetune.trainer import load_model
from services.core.records import Item, ItemId
from tests.model_training.finetune.training_builders import a_config


class Recorded(Mapping[ItemId, Item]):
    """Items that remember which of them were asked for."""

    def __init__(self, items: Mapping[ItemId, Item]) -> None:
        self._items = items
        self.asked: list[str] = []

    def __getitem__(self, item_id: ItemId) -> Item:
        self.asked.append(item_id)
        return self._items[item_id]

    def __iter__(self) -> Iterator[ItemId]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def main(data: str, base: str) -> None:
    torch.set_num_threads(1)
    config = a_config(Path(base), max_steps=4, batch_size=2, evaluate_steps=2)
    plan = plan_run(data, config, base, sft.STAGE)
    rows = plan.rows.take(_first_of_each_item(plan.rows["item_id"].to_pylist()))
    items = Recorded(plan.items)
    trainer = sft.build_trainer(
        replace(plan, rows=rows, items=items), *load_model(plan), Path(data) / "unused"
    )
    items.asked.clear()  # the trainer has looked at the first row
    for _ in trainer.get_train_dataloader():
        pass
    seen = {"trained_on": items.asked, "all": rows["item_id"].to_pylist()}
    (Path(data) / f"seen-{process_index()}.json").write_text(json.dumps(seen))

    result = train.run(data, config)
    (Path(data) / f"result-{process_index()}.json").write_text(json.dumps(result))


def _first_of_each_item(item_ids: list[str]) -> list[int]:
    return sorted(dict(reversed([(item_id, n) for n, item_id in enumerate(item_ids)])).values())


if __name__ == "__main__":
    main(*sys.argv[1:])
