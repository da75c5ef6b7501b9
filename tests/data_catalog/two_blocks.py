"""Two blocks of small tiles, a scene over each, and what a run makes of them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pystac
import shapely
from ingesting import MOMENT, S2
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.grid import BLOCK_TILES, Tile, Zone
from data_catalog.ingest import BlockReport, ingest_block, publish_segment
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import IngestPlan, plan_ingest

SIZE = 480
CORNER = Tile(Zone(32, "N"), 184 * BLOCK_TILES, 1388 * BLOCK_TILES, SIZE)
"""The south-western tile of the western block."""

NAMES = ("west", "east")
"""Of the scenes: each sees the block of that name and ends at its edges."""

OPTIONS: dict[str, Any] = {"bands": ["red", "swir16"], "tile_size": SIZE}


class Run(NamedTuple):
    """What a run planned, and what became of it."""

    plan: IngestPlan
    reports: dict[str, BlockReport]

    @property
    def failures(self) -> dict[str, str]:
        """Causes by scene."""
        return {k: v for report in self.reports.values() for k, v in report.failures.items()}


def tiles_of(name: str) -> list[Tile]:
    """The tiles of a block."""
    first = CORNER.column + BLOCK_TILES * NAMES.index(name)
    columns, rows = range(first, first + BLOCK_TILES), range(CORNER.row, CORNER.row + BLOCK_TILES)
    return [Tile(CORNER.zone, column, row, SIZE) for column in columns for row in rows]


def area() -> shapely.MultiPoint:
    """The centres of the tiles of both blocks."""
    return shapely.MultiPoint([tile.centre for name in NAMES for tile in tiles_of(name)])


def two_scenes(folder: Path, change: Callable[[pystac.Item], None] | None = None) -> TinySource:
    """Writes the scenes and their static catalogue.

    Args:
        folder: Where to.
        change: Applied to every item before it is written.
    """
    source = TinySource(folder)
    west, south, *_ = CORNER.bounds
    side = SIZE * BLOCK_TILES
    for number, name in enumerate(NAMES):
        corner = west + number * side, south + side
        bands = {
            "B04": (noise((side // 10,) * 2, 10 * number), 10),
            "B11": (noise((side // 20,) * 2, 10 * number + 1), 20),
        }
        scl = np.full((side // 20,) * 2, SCL_CLEAR, np.uint8)
        moment = MOMENT + timedelta(days=number)
        item = source.sentinel_2(name, CORNER.zone.epsg, *corner, bands, scl, moment)
        if change is not None:
            change(item)
    source.write()
    return source


def ingest_two_blocks(catalogue: Catalogue, address: str) -> Run:
    """Plans, reads and publishes what is new."""
    plan = plan_ingest(catalogue, address, S2, area(), "2024", **OPTIONS)
    reports = {}
    if not plan.is_empty:
        folder = plan.save(catalogue)
        reports = {block_id: ingest_block(folder, block_id) for block_id in plan.block_ids}
        publish_segment(catalogue, plan)
    return Run(plan, reports)


def observed(catalogue: Catalogue) -> tuple[pd.DataFrame, np.ndarray]:
    """What is known of every tile, and its pixels: the same after two runs that saw the same."""
    frame = current_observations(catalogue, S2)
    known = frame[["tile_id", "datetime", "clear_fraction", "source_scenes"]]
    return pd.DataFrame(known), read_tiles(catalogue, S2, frame, OPTIONS["bands"])


def assert_same(catalogue: Catalogue, other: Catalogue) -> None:
    """Both catalogues know the same of every tile, bit for bit."""
    (one, one_pixels), (two, two_pixels) = observed(catalogue), observed(other)
    pd.testing.assert_frame_equal(one, two)
    np.testing.assert_array_equal(one_pixels, two_pixels)


def index(catalogue: Catalogue, plan: IngestPlan) -> pd.DataFrame:
    """The index of the segment that a plan made, by tile ID."""
    path = catalogue.root / f"tiles-{S2}" / plan.segment_id / "index.parquet"
    return pd.read_parquet(path).set_index("tile_id")
