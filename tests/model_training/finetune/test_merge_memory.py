"""A checkpoint larger than the memory can be merged: two of its files are held at a time."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.support.random_model import TINY, Shape, write_adapter, write_checkpoint
from model_training.finetune.checkpoint_weights import INDEX_FILE

NUM_FILES = 4
# Its own peak: what getrusage tells of a child is at least what its parent held when it started.
# As with weights of tens of MB, which malloc gives back to the system when they are freed.
RETURNED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}
PROGRAM = """
import re, sys
from pathlib import Path
from model_training.finetune import merge_adapter
merge_adapter.run(*sys.argv[1:])
status = Path("/proc/self/status").read_text()
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]))
"""


def peak_of_merge(folder: Path, shape: Shape) -> tuple[int, int]:
    """Peak memory of a merge without the adapter's file, and the base's largest file; in bytes."""
    base = write_checkpoint(folder / "base", shape)
    whole = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(whole, key=lambda name: whole[name].nbytes)
    files = {f"part-{number}.safetensors": names[number::NUM_FILES] for number in range(NUM_FILES)}
    for file, held in files.items():
        save_file({name: whole[name] for name in held}, base / file, {"format": "pt"})
    weight_map = {name: file for file, held in files.items() for name in held}
    (base / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    adapter, merged = write_adapter(folder / "adapter", base), folder / "merged"

    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, base, adapter, merged],
        stdout=subprocess.PIPE, text=True, check=True, env=os.environ | RETURNED_AT_ONCE,
    )  # fmt: skip

    assert sorted(path.name for path in merged.glob("part-*")) == sorted(files)
    of_adapter = (adapter / "adapter_model.safetensors").stat().st_size
    peak = int(ended.stdout.splitlines()[-1]) - of_adapter
    return peak, max((base / file).stat().st_size for file in files)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_merging_takes_the_memory_of_two_files(tmp_path: Path):
    little, _ = peak_of_merge(tmp_path / "small", TINY)

    much, file_bytes = peak_of_merge(tmp_path / "large", replace(TINY, layers=32, mlp=8192))

    assert file_bytes > 40_000_000
    assert much - little < 2.5 * file_bytes
