"""How much memory published models take, served and trained, without a card and without weights.

    python -m benchmarks.families.model_sizes     the tables of docs/gpu.md

Parameters are those of transformers' own classes built from the published configurations, on the
meta device. The memory of a training step is counted: the language model with its adapter runs one
step forward and backward on tensors that have a shape and no data, and every one of them is added
up while it lives. What a card adds to that (context, workspaces, fragmentation) is an allowance.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
import transformers as hf
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.support.random_model import SEVEN_B, build_config
from model_training.finetune.config import TrainConfig
from model_training.finetune.peft_methods import new_adapter

GIB = 2**30
CARDS = (24, 48, 80, 141)  # GiB
SERVED_SHARE = 0.9  # --gpu-memory-share of `msr serve-model`
TEXT_TOKENS = 200  # of a scoring prompt, as in docs/gpu.md
# Of a trained card: context, workspaces and fragmentation. An assumption.
FIXED_GIB, USED_SHARE = 1.5, 0.92
# NF4 with double quantization (QLoRA, section 3): 4 bits, and 0.127 bits of constants.
NF4_BYTES = (4 + 0.127) / 8
BATCHES = (1, 2, 4, 8, 16, 32, 64)

Method = Literal["lora", "qlora"]


@dataclass(frozen=True, slots=True, eq=False)  # a model is its constant
class PublishedModel:
    """A model by its configuration. By the side of a square cover in pixels: `image_tokens` in the
    prompt, and `patches`, the tokens in the vision tower.
    """

    repository: str
    config: Callable[[], Any]
    image_tokens: dict[int, int]
    patches: dict[int, int]


def _qwen_3_vl(
    *, hidden: int, mlp: int, vision_layers: int, vision_hidden: int, vision_mlp: int
) -> Any:
    """Qwen3-VL in a dense form; the smaller one shares its head with its embeddings."""
    return hf.Qwen3VLConfig(
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": vision_mlp,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": _DEEPSTACK[vision_layers],
        },
        text_config={
            "vocab_size": 151_936,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        tie_word_embeddings=hidden == 2560,
    )


# The layers of the vision tower whose features join the language model's first layers.
_DEEPSTACK = {24: [5, 11, 17], 27: [8, 16, 24]}

LLAVA = PublishedModel(
    "llava-hf/llava-v1.6-mistral-7b-hf",
    partial(build_config, SEVEN_B),
    {336: 1176, 672: 2928},
    {336: 3 * 577, 672: 5 * 577},  # the overview and two or four tiles
)
_QWEN_PATCHES = {336: 4 * 100, 672: 4 * 441}  # four make a token
QWEN_4B = PublishedModel(
    "Qwen/Qwen3-VL-4B-Instruct",
    partial(
        _qwen_3_vl,
        **{"hidden": 2560, "mlp": 9728},
        **{"vision_layers": 24, "vision_hidden": 1024, "vision_mlp": 4096},
    ),
    {336: 102, 672: 443},
    _QWEN_PATCHES,
)
QWEN_8B = PublishedModel(
    "Qwen/Qwen3-VL-8B-Instruct",
    partial(
        _qwen_3_vl,
        **{"hidden": 4096, "mlp": 12_288},
        **{"vision_layers": 27, "vision_hidden": 1152, "vision_mlp": 4304},
    ),
    {336: 102, 672: 443},
    _QWEN_PATCHES,
)
MODELS = {"LLaVA-NeXT 7B": LLAVA, "Qwen3-VL 4B": QWEN_4B, "Qwen3-VL 8B": QWEN_8B}


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many a model has: all, those in the language model's linear layers, an adapter's."""

    total: int
    quantized: int
    adapter: int


@cache
def count_parameters(model: PublishedModel, rank: int = 16) -> Parameters:
    """Counted on the meta device; the adapter is the one that `msr train` makes."""
    built = _with_adapter(model, rank)
    adapter = [weight for weight in built.parameters() if weight.requires_grad]
    base = [weight for weight in built.parameters() if not weight.requires_grad]
    linear = [
        part.weight.numel()
        for part in built.get_base_model().get_decoder().modules()
        if type(part) is torch.nn.Linear and part.weight.shape[0] > rank < part.weight.shape[1]
    ]
    return Parameters(_numel(base), sum(linear), _numel(adapter))


def kv_bytes_per_token(model: PublishedModel, bytes_per_value: int = 2) -> int:
    """Memory of one cached token: a key and a value a layer and key-value head."""
    text = model.config().text_config
    values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return int(values * bytes_per_value)


def resident_items(model: PublishedModel, card: int, side: int = 336) -> int:
    """Items whose keys and values fit beside the weights on a card of this many GiB; 0 if the
    weights alone do not fit.
    """
    left = SERVED_SHARE * card * GIB - 2 * count_parameters(model).total
    return max(0, int(left / (model.image_tokens[side] * kv_bytes_per_token(model))))


# --- a training step -----------------------------------------------------------------------------


def training_gib(
    model: PublishedModel, batch: int, *, method: Method = "lora", side: int = 336, rank: int = 16
) -> float:
    """What a card needs for steps of `batch` prompts with covers of this side, with the allowance.

    Weights in bfloat16 (for qlora those of the linear layers in 4 bits), the adapter with gradients
    and two moments in float32, and what lives at the peak of a step.
    """
    count = count_parameters(model, rank)
    weights = 2 * count.total
    if method == "qlora":
        weights += int((NF4_BYTES - 2) * count.quantized)
    first, further = step_bytes(model, model.image_tokens[side] + TEXT_TOKENS, rank)
    step = first + (batch - 1) * further + batch * _kept_of_an_image(model, side)
    return FIXED_GIB + (weights + 4 * 4 * count.adapter + step) / GIB / USED_SHARE


def largest_batch(
    model: PublishedModel, card: int, *, method: Method = "lora", side: int = 336
) -> int:
    """The largest of BATCHES that fits a card of this many GiB; 0 if none does."""
    fits = [
        batch for batch in BATCHES if training_gib(model, batch, method=method, side=side) <= card
    ]
    return max(fits, default=0)


def _kept_of_an_image(model: PublishedModel, side: int) -> int:
    """What a step keeps of the vision tower: the input of each of its layers, in bfloat16."""
    vision = model.config().vision_config
    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    return int(2 * layers * vision.hidden_size * model.patches[side])


@cache
def step_bytes(model: PublishedModel, tokens: int, rank: int = 16) -> tuple[int, int]:
    """The most that lives at once in a step beside weights and optimizer: for one prompt of so many
    tokens, and by how much it grows with each further one, which is always the same.
    """
    decoder, without_data = _on_a_device(model, rank)
    one, two = (_peak(decoder, without_data, batch, tokens) for batch in (1, 2))
    return one, two - one


@cache
def _on_a_device(model: PublishedModel, rank: int) -> tuple[Any, FakeTensorMode]:
    """The language model with its adapter, ready to train, and the mode in which it has no data."""
    count_parameters(model, rank)  # before a shared weight becomes two
    built = _with_adapter(model, rank)
    decoder = built.get_base_model().get_decoder()
    decoder.gradient_checkpointing_enable()
    decoder.train()
    without_data = FakeTensorMode(allow_non_fake_inputs=True)
    with without_data:
        for part in decoder.modules():
            for name, weight in list(part._parameters.items()):
                if weight is not None:
                    empty = torch.empty(weight.shape, dtype=weight.dtype)
                    part._parameters[name] = torch.nn.Parameter(empty, weight.requires_grad)
            for name, buffer in list(part._buffers.items()):
                if buffer is not None:
                    part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return decoder, without_data


def _peak(decoder: Any, without_data: FakeTensorMode, batch: int, tokens: int) -> int:
    """Multiplied in bfloat16, as `msr train` does."""
    shape = (batch, tokens, decoder.config.hidden_size)
    with without_data:
        inputs = torch.empty(*shape, dtype=torch.bfloat16, requires_grad=True)
        living = _LivingBytes(decoder.parameters())
        with living:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                states = decoder(inputs_embeds=inputs, use_cache=False).last_hidden_state
            states.float().sum().backward()
        decoder.zero_grad()
    return living.peak


@cache
def _with_adapter(model: PublishedModel, rank: int) -> Any:
    """The model in bfloat16 below its adapter in float32, on the meta device."""
    with torch.device("meta"):
        base = hf.AutoModelForImageTextToText.from_config(model.config(), dtype=torch.bfloat16)
        configured = TrainConfig(base_model=model.repository, lora_rank=rank, lora_alpha=2 * rank)
        built: Any = get_peft_model(base, new_adapter(configured, base))
    for weight in built.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return built


class _LivingBytes(TorchDispatchMode):  # type: ignore[misc]  # torch is untyped
    """Adds up the storages that live, the ones of `known` aside; `peak` is the most at once."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {weight.untyped_storage()._cdata for weight in known}
        self._alive: dict[int, Any] = {}
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it returned."""
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self._see(each.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or key in self._alive:
            return
        self._alive[key] = weakref.ref(storage, partial(self._forget, key, size))
        self._now += size
        self.peak = max(self.peak, self._now)

    def _forget(self, key: int, size: int, _: Any) -> None:
        self._alive.pop(key, None)
        self._now -= size


def _numel(weights: Iterable[Any]) -> int:
    return sum(weight.numel() for weight in weights)


def main() -> None:
    """Print parameters, keys and values, and what fits on which card."""
    for name, model in MODELS.items():
        count, kv = count_parameters(model), kv_bytes_per_token(model)
        print(f"{name}: {count.total / 1e9:.2f} G parameters, adapter {count.adapter / 1e6:.1f} M,")
        print(f"  {2 * count.total / GIB:.1f} GiB, {kv:,} bytes of keys and values a token")
        first, further = step_bytes(model, model.image_tokens[336] + TEXT_TOKENS)
        print(f"  step: {first / GIB:.2f} GiB, {further / GIB:.2f} a further prompt")
        for card in CARDS:
            print(
                f"  {card:>4} GiB: {resident_items(model, card):>6} items, batch "
                f"{largest_batch(model, card)} (lora), "
                f"{largest_batch(model, card, method='qlora')} (qlora); at 672 "
                f"{resident_items(model, card, 672):>6}, {largest_batch(model, card, side=672)}, "
                f"{largest_batch(model, card, method='qlora', side=672)}"
            )


if __name__ == "__main__":
    main()
