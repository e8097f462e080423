"""One example through every stage of training, evaluation and serving: the same tokens, one P(Yes).

The tests on vLLM's side of this lie in `tests/vllm/test_engine.py`.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest
import torch
from transformers import AutoProcessor

from model_training.finetune.collation import IGNORED, AnswerCollator, PromptCollator
from model_training.finetune.stages.dpo import PairsWithImages, PreferenceCollator
from model_training.finetune.stages.listwise import GroupsWithImages
from model_training.finetune.stages.sft import RowsWithImages
from model_training.scoring.score_users import UserCandidates, score_users
from services.core.prompts import Messages
from services.core.records import Item, ItemId, UserId
from services.core.scoring import AnswerLogprobs, Calibration
from services.engines.local.engine import LocalEngine
from services.state.user_store import Store
from tests.api.builders import an_app, put_user, recommend
from tests.engines.conftest import a_cover, a_manifest

PREFERENCE = "Likes calm things in red, drawn flat."
# What a prompt must not change: a title with markup, and an item without an image.
ITEMS = {
    ItemId("i1"): Item(ItemId("i1"), "a calm fox", a_cover("red")),
    ItemId("i2"): Item(ItemId("i2"), "[INST] </s> <image> Émile 猫"),
    ItemId("i3"): Item(ItemId("i3"), "a wild harbor", a_cover("blue")),
}
CALIBRATION = Calibration(slope=0.5, intercept=-1.0, prior=0.25)


class ListeningEngine(LocalEngine):
    """Keeps the token ids of every prompt that it scores."""

    heard: list[list[int]]

    async def score(self, messages: Messages) -> AnswerLogprobs:
        self.heard.append(self._model.encode_to_fit(messages, 1).tokens["input_ids"].tolist())
        return await super().score(messages)


@pytest.fixture
async def engine(checkpoint: Path, adapter: Path, tmp_path: Path) -> AsyncIterator[ListeningEngine]:
    copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter" / "manifest.json").write_text(a_manifest().to_json())
    opened = ListeningEngine.load(str(checkpoint), str(tmp_path / "adapter"), device="cpu")
    assert isinstance(opened, ListeningEngine)
    opened.heard = []
    yield opened
    await opened.close()


@pytest.fixture
async def evaluated(engine: ListeningEngine) -> list[list[int]]:
    """The token ids of each item's prompt as evaluation asks it."""
    group = UserCandidates(UserId("u1"), PREFERENCE, tuple(ITEMS.values()))
    async for _ in score_users(engine, [group]):
        pass
    return list(engine.heard)


def prompts_of(batch: dict[str, torch.Tensor], num_answer_tokens: int = 0) -> list[list[int]]:
    """The rows of a batch without padding and, as far as they are answered, without the answer."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    asked = [ids[mask == 1].tolist() for ids, mask in rows]
    return [ids[: len(ids) - num_answer_tokens] for ids in asked]


def columns(label: bool = True) -> dict[str, list[object]]:
    """The trainers' columns of one user's rows."""
    return {
        "item_id": list(ITEMS),
        "preference": [PREFERENCE] * len(ITEMS),
        "label": [label] * len(ITEMS),
    }


def as_rows(transformed: dict[str, list[object]]) -> list[dict[str, object]]:
    return [
        dict(zip(transformed, values, strict=True))
        for values in zip(*transformed.values(), strict=True)
    ]


async def test_sft_learns_from_the_tokens_that_evaluation_asks(checkpoint, evaluated):
    collate = AnswerCollator(AutoProcessor.from_pretrained(checkpoint))
    batch = collate(as_rows(RowsWithImages(ITEMS)(columns())))

    assert len({int((labels != IGNORED).sum()) for labels in batch["labels"]}) == 1
    assert prompts_of(batch, num_answer_tokens=2) == evaluated  # Yes and the end of its turn


async def test_dpo_learns_from_the_tokens_that_evaluation_asks(checkpoint, evaluated):
    collate = PreferenceCollator(AutoProcessor.from_pretrained(checkpoint))
    batch = collate(as_rows(PairsWithImages(ITEMS)(columns())))

    assert prompts_of(batch, num_answer_tokens=2) == evaluated * 2  # chosen, then rejected
    first_answers = batch["completion_mask"].argmax(dim=1)
    assert first_answers.tolist() == [len(prompt) for prompt in evaluated] * 2


async def test_rank_learns_from_the_tokens_that_evaluation_asks(checkpoint, evaluated):
    collate = PromptCollator(AutoProcessor.from_pretrained(checkpoint))
    group = {"preference": [PREFERENCE], "item_ids": [list(ITEMS)]}

    assert prompts_of(collate(as_rows(GroupsWithImages(ITEMS)(group)))) == evaluated


async def test_rank_learns_from_the_margins_that_evaluation_measures(checkpoint, engine):
    collate = PromptCollator(AutoProcessor.from_pretrained(checkpoint))
    batch = collate(
        as_rows(GroupsWithImages(ITEMS)({"preference": [PREFERENCE], "item_ids": [list(ITEMS)]}))
    )
    with torch.inference_mode():
        logits = engine._model._model(**batch, logits_to_keep=1).logits[:, -1]
    trained = (logits[:, engine._model.answers.yes] - logits[:, engine._model.answers.no]).tolist()
    group = UserCandidates(UserId("u1"), PREFERENCE, tuple(ITEMS.values()))
    [measured] = [scored async for _, scored in score_users(engine, [group])]

    assert [each.margin for each in measured] == pytest.approx(trained, abs=1e-4)


async def test_the_service_asks_the_tokens_and_gives_the_probabilities_of_evaluation(
    store: Store, engine: ListeningEngine, evaluated: list[list[int]]
):
    group = UserCandidates(UserId("u1"), PREFERENCE, tuple(ITEMS.values()))
    [measured] = [scored async for _, scored in score_users(engine, [group])]
    for item in ITEMS.values():
        await store.items.put_item(item, summary="a picture")
    await put_user(store, "u1", ["i1"] * 3, preference=PREFERENCE)
    engine.heard.clear()
    answer = await recommend(
        an_app(store, engine), candidates=list(ITEMS), exclude_seen=False, mode="mllm"
    )

    assert sorted(engine.heard) == sorted(evaluated)
    served = {item["item_id"]: item["probability"] for item in answer["items"]}
    expected = {each.item_id: CALIBRATION.probability(each.margin) for each in measured}
    assert served == pytest.approx(expected, abs=1e-5)
