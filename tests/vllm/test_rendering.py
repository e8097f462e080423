"""What a vLLM server is asked is, token by token, what every stage of training learns from."""

import pytest
from transformers import AutoProcessor

from model_training.finetune.collation import AnswerCollator, PromptCollator
from model_training.finetune.stages.dpo import PairsWithImages, PreferenceCollator
from model_training.finetune.stages.listwise import GroupsWithImages
from model_training.finetune.stages.sft import RowsWithImages
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from tests.parity.test_one_example_everywhere import as_rows, prompts_of
from tests.vllm.conftest import BASE
from tests.vllm.test_engine import some_items
from tests.vllm.test_prefix_cache import tokens

pytestmark = pytest.mark.vllm

PREFERENCE = "Likes calm things in red, drawn flat."
ITEMS = {
    item.item_id: item
    for item in (*some_items(2), Item(ItemId("text"), "[INST] </s> <image> Émile 猫"))
}
NUM_ANSWER_TOKENS = 2  # Yes or No, and the end of its turn


@pytest.fixture
def served(model_server: str) -> list[list[int]]:
    """The prompt's token ids of each item, as the server tells them."""
    return [tokens(model_server, scoring_messages(PREFERENCE, item)) for item in ITEMS.values()]


def test_sft_and_dpo_learn_from_the_tokens_that_vllm_is_asked(served: list[list[int]]):
    processor = AutoProcessor.from_pretrained(BASE)
    columns = {
        "item_id": list(ITEMS),
        "preference": [PREFERENCE] * len(ITEMS),
        "label": [True] * len(ITEMS),
    }
    answered = AnswerCollator(processor)(as_rows(RowsWithImages(ITEMS)(columns)))
    preferred = PreferenceCollator(processor)(as_rows(PairsWithImages(ITEMS)(columns)))

    assert prompts_of(answered, NUM_ANSWER_TOKENS) == served
    assert prompts_of(preferred, NUM_ANSWER_TOKENS) == served * 2


def test_rank_learns_from_the_tokens_that_vllm_is_asked(served: list[list[int]]):
    group = {"preference": [PREFERENCE], "item_ids": [list(ITEMS)]}
    asked = PromptCollator(AutoProcessor.from_pretrained(BASE))(
        as_rows(GroupsWithImages(ITEMS)(group))
    )

    assert prompts_of(asked) == served
