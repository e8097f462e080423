"""The model families that are tested end to end, by transformers' `model_type`.

All that this project needs to know of a family is found in its own files: tensors by its processor,
lengths by its configuration, weight names by its checkpoint, layers by its model class, end and
answer tokens by its template. `tests/families` takes a small checkpoint of each through the whole
road. A family that is not here is tried as it is, and the probe at load says whether it works
(`probe.py`).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """A family's name, and what vLLM 0.32 lacks for it.

    `lora_on_vllm`: it serves LoRA adapters on this family; else they are merged first.
    `vllm_on_cpu`: its CPU build computes what the authors do.
    """

    name: str
    lora_on_vllm: bool = True
    vllm_on_cpu: bool = True


FAMILIES = {
    "llava_next": Family("LLaVA-NeXT"),
    "llava_onevision": Family("LLaVA-OneVision", lora_on_vllm=False),
    "qwen2_5_vl": Family("Qwen2.5-VL"),
    "qwen3_vl": Family("Qwen3-VL"),
    "internvl": Family("InternVL3"),
    # The tokens of an image see each other both ways; attention on a CPU has no such mask.
    "gemma3": Family("Gemma 3", vllm_on_cpu=False),
    "mistral3": Family("Mistral-Small 3.1"),
    "llava": Family("Pixtral"),
    "smolvlm": Family("SmolVLM"),
}


# What is assumed of the others.
UNKNOWN = Family("this family")


def supported() -> str:
    """Their names, for messages."""
    return ", ".join(family.name for family in FAMILIES.values())
