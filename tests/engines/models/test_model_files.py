"""What a checkpoint's files say, and what is wrong with them, is said before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError
from transformers import LlamaConfig

from services.core.errors import AnswerTokenMissing, ModelUnusable
from services.engines.models.model_files import (
    MAX_CONTEXT,
    context_length,
    damaged_weights,
    is_folder,
    load_processor,
)
from services.engines.prompt_encoding import PromptEncoder


@pytest.fixture
def a_copy(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny checkpoint with one of its files changed."""

    def copy(file: str, change: Callable[[dict], object]) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(checkpoint, folder)
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
        return folder

    return copy


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./model", "~/model", "a/b/c", "tests/no-such-model", "no-such"]
)
def test_what_can_only_be_a_folder_is_missed_without_asking_a_hub(name: str):
    with pytest.raises(ModelUnusable, match=f"there is no folder {name}"):
        is_folder(name)


def test_a_hub_name_is_no_folder():
    assert not is_folder("llava-hf/llava-v1.6-mistral-7b-hf")


@pytest.mark.parametrize(
    ("positions", "length"), [(4096, 4096), (32_768, MAX_CONTEXT), (None, MAX_CONTEXT)]
)
def test_a_prompt_is_as_long_as_the_language_model_has_positions(positions, length):
    text = SimpleNamespace(max_position_embeddings=positions)

    assert context_length(SimpleNamespace(get_text_config=lambda: text)) == length


def test_a_checkpoint_without_a_chat_template_is_refused(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ModelUnusable, match=r"no chat template; add the model's chat_template"):
        PromptEncoder(load_processor(str(folder)))


def test_a_template_beside_the_tokenizer_alone_is_used(checkpoint: Path, a_copy):
    template = (checkpoint / "chat_template.jinja").read_text()
    folder = a_copy("tokenizer_config.json", lambda each: each.update(chat_template=template))
    (folder / "chat_template.jinja").unlink()

    assert PromptEncoder(load_processor(str(folder))).answers.yes > 0


def test_a_tokenizer_without_a_pad_token_is_refused(a_copy):
    folder = a_copy("tokenizer_config.json", lambda each: each.pop("pad_token"))

    with pytest.raises(ModelUnusable, match="no pad token; name one as `pad_token`"):
        PromptEncoder(load_processor(str(folder)))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(a_copy):
    folder = a_copy("config.json", lambda each: each["text_config"].update(vocab_size=100))

    with pytest.raises(ModelUnusable, match=r"has tokens up to \d+, the model embeds 100"):
        load_processor(str(folder))


def test_answers_that_begin_alike_are_refused(checkpoint: Path):
    processor = load_processor(str(checkpoint))
    processor.chat_template = processor.chat_template.replace("part['text']", "'same'")

    with pytest.raises(AnswerTokenMissing):
        PromptEncoder(processor)


def test_a_folder_without_a_processor_is_named(a_copy):
    folder = a_copy("config.json", lambda each: None)
    for path in folder.glob("*processor*"):
        path.unlink()

    with pytest.raises(
        ModelUnusable, match=rf"cannot load the processor of '{folder}' \(model_type llava_next\)"
    ):
        load_processor(str(folder))


def test_a_model_that_takes_no_images_is_refused_by_its_type(a_copy):
    folder = a_copy("tokenizer_config.json", lambda each: each.pop("processor_class"))
    for path in folder.glob("*processor*"):
        path.unlink()
    LlamaConfig(num_hidden_layers=1).save_pretrained(folder)

    with pytest.raises(ModelUnusable, match=r"\(model_type llama\) takes no images; supported are"):
        load_processor(str(folder))


def test_of_several_files_of_weights_the_damaged_one_is_named(checkpoint: Path, tmp_path: Path):
    for name in ("a.safetensors", "c.safetensors"):
        shutil.copy(checkpoint / "model.safetensors", tmp_path / name)
    (tmp_path / "b.safetensors").write_bytes(b"half of it")

    message = str(damaged_weights(str(tmp_path), SafetensorError("damaged")))

    assert str(tmp_path / "b.safetensors") in message


def test_damaged_weights_of_a_hub_name_are_downloaded_again():
    error = damaged_weights("owner/model", SafetensorError("damaged"))

    assert str(error).startswith("a file of weights of 'owner/model' is damaged")
    assert "downloaded again" in str(error)
