"""Imports point down, and heavy packages stay in their rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "rshash": {
        "data_catalog",
        "flows",
        "prefect",
        "pystac",
        "pystac_client",
        "rasterio",
        "zarr",
        "async_tiff",
        "obstore",
    },
    "data_catalog": {"flows", "prefect", "torch"},
    "flows": {"torch", "pystac", "pystac_client", "rasterio", "zarr", "async_tiff", "obstore"},
}
"""What each package may not import."""

BARE = {"numpy", "torch", "rshash"}
"""What the core of rshash may import at module level beside the standard library."""


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def modules(package: str) -> list[Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"{package} has no modules"
    return paths


@pytest.mark.parametrize("package", FORBIDDEN)
def test_package_imports_point_down(package: str) -> None:
    offences = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in modules(package)
        if (found := imports(path) & FORBIDDEN[package])
    }
    assert not offences


def test_science_needs_only_numpy_and_torch() -> None:
    import sys

    offences = {
        path.name: sorted(found)
        for path in modules("rshash")
        if (found := imports(path, top_level_only=True) - BARE - sys.stdlib_module_names)
    }
    assert not offences


def test_modules_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in FORBIDDEN
        for path in modules(package)
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
