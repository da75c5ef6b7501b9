"""What tests of ingesting share: tiny granules around one tile, planning and running."""

from datetime import UTC, datetime, timedelta

import geopandas as gpd
import numpy as np
import shapely
from tiny_source import SCL_CLEAR, SCL_CLOUD, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.grid import Tile, Zone
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import IngestPlan, plan_ingest

S2 = "sentinel-2-l2a"
TILE = Tile(Zone(32, "N"), 360, 2778)
INSIDE = TILE.footprint.buffer(-0.001)
MOMENT = datetime(2024, 6, 18, 10, 16, tzinfo=UTC)


def add_granule(
    source: TinySource, scene_id: str, days: int = 0, seed: int = 1, clear: bool = True, **more
) -> None:
    """A granule over ``TILE`` and the tile east of it."""
    west, _, _, north = TILE.bounds
    scl = np.full((156, 252), SCL_CLEAR if clear else SCL_CLOUD, np.uint8)
    bands = {"B04": (noise((312, 504), seed), 10), "B11": (noise((156, 252), seed + 1), 20)}
    moment = MOMENT + timedelta(days=days)
    corner = west - 600, north + 600
    source.sentinel_2(scene_id, TILE.zone.epsg, *corner, bands, scl, moment, **more)


def add_half(source: TinySource, scene_id: str, east: bool, minutes: int = 0) -> None:
    """A scene that ends, or begins, in the middle of ``TILE``."""
    west, _, _, north = TILE.bounds
    bands = {"B04": (noise((312, 156), 5), 10), "B11": (noise((156, 78), 6), 20)}
    scl = np.full((156, 78), SCL_CLEAR, np.uint8)
    corner = west - 600 + 1560 * east, north + 600
    source.sentinel_2(
        scene_id,
        TILE.zone.epsg,
        *corner,
        bands,
        scl,
        MOMENT + timedelta(minutes=minutes),
        s2__mgrs_tile=scene_id,
        s2__datatake_id="GS2B_20240618T101600_038043_N05.11",
    )


def two_tiles() -> shapely.Geometry:
    east = Tile(TILE.zone, TILE.column + 1, TILE.row)
    return shapely.MultiPoint([TILE.centre, east.centre])


def plan(catalogue: Catalogue, source: TinySource, area=None, **more) -> IngestPlan:
    where = str(source.write())
    options = {"bands": ["red", "swir16"], **more}
    return plan_ingest(catalogue, where, S2, area or two_tiles(), "2024", **options)


def run(catalogue: Catalogue, planned: IngestPlan) -> str:
    folder = planned.save(catalogue)
    for block_id in planned.block_ids:
        ingest_block(folder, block_id)
    return publish_segment(catalogue, IngestPlan.load(folder))


def leave_an_ingest_half_done(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    ingest_block(planned.save(catalogue), planned.block_ids[0])


def index_of(catalogue: Catalogue, segment_id: str) -> gpd.GeoDataFrame:
    return gpd.read_parquet(catalogue.root / f"tiles-{S2}" / segment_id / "index.parquet")
