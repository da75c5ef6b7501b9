"""Two nights on a small demonstration world, which tests of this folder share."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.scenes import World

WORLD = World(tiles=6, column=307, row=2771)
"""Four blocks, none of them full, in several overlapping scenes."""

PERIOD = "2024-06-01/2024-09-30"


@dataclass
class Nights:
    folder: Path
    source: str
    reports: list[dict[str, Any]]
    checksums: dict[Path, str]
    """Of every published file after the first night."""

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue.open(self.folder / "catalogue")

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "catalog": str(self.folder / "catalogue"),
            "source": self.source,
            "area": str(self.folder / "area.geojson"),
            "period": PERIOD,
            "minimum_clear": 0.05,
        }


def checksums(root: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }
