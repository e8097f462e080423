"""What the stages after SFT start from: an adapter with its manifest, and rows of examples."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model

from model_training.build_examples import SCHEMA
from model_training.demo.checkpoint import load_checkpoint
from services.engines.adapters import MANIFEST
from services.engines.checkpoints import fingerprint_checkpoint
from tests.engines.conftest import a_manifest

_KINDS = {"p": "positive", "q": "positive", "e": "uniform", "h": "hard"}


def some_rows(items: Mapping[str, str]) -> pa.Table:
    """Examples of the items of each user, e.g. "p e1 h1"; the first letter says the kind."""
    rows = [
        {
            "user_id": user_id,
            "item_id": item_id,
            "preference": f"Likes what {user_id} likes.",
            "label": _KINDS[item_id[0]] == "positive",
            "split": "train",
            "kind": _KINDS[item_id[0]],
        }
        for user_id, item_ids in items.items()
        for item_id in item_ids.split()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def start_adapter(base: str, folder: Path) -> str:
    """An adapter on this base that answers otherwise than the base does, with its manifest."""
    model, _ = load_checkpoint(Path(base))
    torch.manual_seed(1)
    targets = r".*\blanguage_model\..*\.(q_proj|v_proj|down_proj)"
    lora = LoraConfig(r=4, target_modules=targets, lora_dropout=0.1, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    manifest = a_manifest(
        model=fingerprint_checkpoint(base), weights=fingerprint_checkpoint(folder)
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return str(folder)
