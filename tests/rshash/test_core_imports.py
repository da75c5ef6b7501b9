import subprocess
import sys

import pytest

MODULES = [
    "ahcl",
    "autoencoder",
    "baselines",
    "checkpoints",
    "codes",
    "device_search",
    "distributed",
    "evaluation",
    "extractors",
    "features",
    "hasher",
    "hashing",
    "head",
    "job",
    "kmeans",
    "labels",
    "model",
    "mrhash",
    "neighbours",
    "pixels",
    "probe",
    "rankings",
    "repeats",
    "report",
    "scaling",
    "search",
    "similarity",
    "sources",
    "statistics",
    "streaming",
    "training",
]
OPTIONAL = {"torchgeo", "timm", "faiss", "matplotlib", "safetensors"}
NO_TORCH = ["codes", "evaluation", "rankings", "repeats", "search", "statistics"]


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [(MODULES, OPTIONAL), (NO_TORCH, {*OPTIONAL, "torch"})],
    ids=["numpy and torch are enough", "codes need no torch"],
)
def test_the_core_imports_without(modules: list[str], blocked: set[str]) -> None:
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in sorted(blocked))]
    lines += [f"import rshash.{name}" for name in modules]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)
