import subprocess
import sys

import pytest

MODULES = [
    "autoencoder",
    "baselines",
    "codes",
    "evaluation",
    "features",
    "head",
    "kmeans",
    "model",
    "mrhash",
    "search",
]
OPTIONAL = {"torchgeo", "timm", "faiss", "safetensors"}


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [(MODULES, OPTIONAL), (["codes", "search"], {*OPTIONAL, "torch"})],
    ids=["numpy and torch are enough", "codes and search need no torch"],
)
def test_the_core_imports_without(modules: list[str], blocked: set[str]) -> None:
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in sorted(blocked))]
    lines += [f"import rshash.{name}" for name in modules]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
