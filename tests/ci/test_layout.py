"""How the code is laid out: small folders."""

from collections import Counter

from tests.docs.documents import ROOT

PACKAGES = ("services", "model_training", "clients", "benchmarks")
MOST_FILES = 16


def test_a_folder_holds_at_most_sixteen_python_files():
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    counts = Counter(path.parent for path in files if "node_modules" not in path.parts)

    assert not {str(folder): num for folder, num in counts.items() if num > MOST_FILES}
