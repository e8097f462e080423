"""No text of an item or a user adds a special token to a prompt, in any family."""

import pytest

from benchmarks.attacks.titles import ATTACKS
from benchmarks.families.checkpoints import FAMILIES
from services.core import prompts
from services.core.prompts import HistoryItem, Messages
from services.core.records import Item, ItemId
from services.engines.prompt_encoding import PromptEncoder
from tests.families.test_encoding import processor

pytestmark = pytest.mark.vllm  # as in test_encoding


def all_prompts(text: str) -> list[Messages]:
    item = Item(ItemId("i1"), text, None)
    block = [HistoryItem(text, text)] * 3
    return [
        prompts.summary_messages(item),
        prompts.preference_messages(text, block),
        prompts.scoring_messages(text, item),
    ]


def special_ids(name: str, messages: Messages) -> list[int]:
    added = processor(name).tokenizer.added_tokens_decoder
    ids = PromptEncoder(processor(name)).encode(messages).tokens["input_ids"].tolist()
    return [token for token in ids if token in added]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_title_of_special_tokens_adds_none(name: str):
    titles = [str(token) for token in processor(name).tokenizer.added_tokens_decoder.values()]
    titles += [attack("a fox") for attack in list(ATTACKS.values())[::6]]
    honest = [special_ids(name, messages) for messages in all_prompts("a calm fox")]

    for title in titles:
        found = [special_ids(name, messages) for messages in all_prompts(f"a {title} fox")]
        assert found == honest, title
