"""What a checkpoint's own files say of a model: its configuration, its processor, its length.

A model is named by its folder or by its name on a model hub.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from services.core.errors import ModelUnusable
from services.engines.models.families import supported
from services.engines.text_processor import TextProcessor

# A prompt is one image (2,928 tokens at most) and some hundred words. vLLM wants room in the KV
# cache for one prompt of the greatest length: for the 32,768 tokens of a Mistral 7B 4 GiB, for
# these 1.
MAX_CONTEXT = 8192


def is_folder(model: str) -> bool:
    """Whether a model is named by its folder; else it is a name on the model hub.

    Raises ModelUnusable for what can only be a folder and is not there, without asking a hub.
    """
    path = Path(model)
    if path.is_dir():
        return True
    is_hub_name = len(path.parts) == 2 and not model.startswith(("/", ".", "~"))
    if not is_hub_name or path.parent.exists():
        raise ModelUnusable(
            f"there is no folder {model}; name a checkpoint folder, or a hub name with its owner"
        )
    return False


def read_config(model: str) -> Any:
    """The configuration of a checkpoint (folder or hub name).

    Raises ModelUnusable if it cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig  # seconds to import

    where = "in this folder" if is_folder(model) else "under this name on a hub within reach"
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelUnusable(
            f"{model!r}: no model that this version knows is {where} ({error}); give --model a "
            "checkpoint folder or a hub name"
        ) from error


def damaged_weights(model: str, error: SafetensorError) -> ModelUnusable:
    """What to raise when the weights of a checkpoint (folder or hub name) cannot be read: it names
    the file, which the library's `error` does not.
    """
    if not is_folder(model):
        return ModelUnusable(
            f"a file of weights of {model!r} is damaged ({error}); remove the model from the hub's "
            "cache on this machine, so that it is downloaded again"
        )
    for path in sorted(Path(model).glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as fault:
            return _damaged(path, fault)
    return _damaged(Path(model), error)


def _damaged(path: Path, error: SafetensorError) -> ModelUnusable:
    return ModelUnusable(
        f"the weights in {path} are damaged or cut off ({error}); copy or download them again"
    )


def context_length(config: Any) -> int:
    """How many tokens a prompt and its answer may have, in every engine: as many as the language
    model of this configuration has positions for, at most MAX_CONTEXT.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(positions or MAX_CONTEXT, MAX_CONTEXT)


def takes_images(model: str) -> bool:
    """Whether a checkpoint's configuration is a multimodal model's; else it can only write
    preferences.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return read_config(model).model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def require_images(model: str) -> None:
    """ModelUnusable if the model reads text alone."""
    if not takes_images(model):
        raise _takes_no_images(f"{model!r} (model_type {read_config(model).model_type})")


def _takes_no_images(named: str) -> ModelUnusable:
    return ModelUnusable(
        f"{named} takes no images; supported are {supported()}; a text-only model can write the "
        "preferences: name it in MSR_WRITER"
    )


def load_processor(model: str, *, texts_only: bool = False) -> Any:
    """The processor of a checkpoint (folder or hub name); of a text-only model a `TextProcessor`.

    Raises ModelUnusable if it cannot be loaded, takes no images (unless `texts_only`), or knows
    tokens that the model does not have.
    """
    from transformers import AutoProcessor

    config = read_config(model)
    named = f"{model!r} (model_type {config.model_type})"
    try:
        processor = AutoProcessor.from_pretrained(model)
    except ImportError as error:
        raise ModelUnusable(
            f"the processor of {named} needs packages that only some models need; run "
            f"`pip install 'mllm-msr[families]'` ({error})"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnusable(
            f"cannot load the processor of {named} ({error}); name a checkpoint folder with its "
            "tokenizer and image processor, or a hub name that this machine can reach"
        ) from error
    if getattr(processor, "image_processor", None) is None:
        if not texts_only:
            raise _takes_no_images(named)
        processor = TextProcessor(getattr(processor, "tokenizer", processor))
    num_embedded = config.get_text_config().vocab_size
    last_token = max(processor.tokenizer.get_vocab().values())
    if last_token >= num_embedded:
        raise ModelUnusable(
            f"the tokenizer of {named} has tokens up to {last_token}, the model embeds "
            f"{num_embedded}; put the tokenizer there that belongs to these weights"
        )
    if getattr(processor, "chat_template", None) is None:  # vLLM takes the tokenizer's as well
        processor.chat_template = processor.tokenizer.chat_template
    return processor
