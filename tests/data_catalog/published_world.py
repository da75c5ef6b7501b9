"""A tiny published world for tests: segments, a model and code rows, all real, made in code."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pystac
import torch
import zarr

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import VIEW_SCHEMA, CurrentView, scenes_as_text
from data_catalog.geoparquet import write_geoparquet
from data_catalog.grid import Tile, Zone, footprints
from data_catalog.segments import BLOCK_ROWS, INDEX_SCHEMA
from data_catalog.sensors import get_sensor
from data_catalog.stac_items import segment_item
from rshash.features import make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.scaling import FeatureScaling

SENSOR = "sentinel-2-l2a"
BANDS = ("blue", "green", "red")
SIZE = 1920
NORTH = Zone(32, "N")
SCENES = "https://example.com/items"


def tiles(count: int, zone: Zone = NORTH, column: int = 176, row: int = 2888) -> list[Tile]:
    return [Tile(zone, column + i % 8, row + i // 8, SIZE) for i in range(count)]


def index(
    some_tiles: list[Tile], day: str = "2024-06-01", scene: str = "S2A_1"
) -> gpd.GeoDataFrame:
    frame = pd.DataFrame(
        {
            "tile_id": [tile.id for tile in some_tiles],
            "row": range(len(some_tiles)),
            "datetime": pd.Timestamp(day, tz="UTC"),
            "clear_fraction": np.float32(0.9),
            "source_scenes": [[scene]] * len(some_tiles),
            "considered_scenes": [[scene]] * len(some_tiles),
            "state": "valid",
            "reason": None,
        }
    )
    return gpd.GeoDataFrame(frame, geometry=footprints(some_tiles), crs="OGC:CRS84")


def view_of(observations: pd.DataFrame) -> CurrentView:
    """A view of observations that no segment need hold."""
    names = ["tile_id", "row", "datetime", "clear_fraction", "source_scenes"]
    rows = pa.Table.from_pandas(pd.DataFrame(observations[names]), preserve_index=False)
    scenes = scenes_as_text(rows["source_scenes"])
    columns = {
        "tile_id": rows["tile_id"],
        "segment": pa.array([0] * len(observations), pa.int32()),
        **{name: rows[name] for name in ("row", "datetime", "clear_fraction")},
        "source_scenes": scenes,
    }
    return CurrentView(("one",), (), pa.table(columns).cast(VIEW_SCHEMA).sort_by("tile_id"))


def publish_segment(
    catalogue: Catalogue,
    segment_id: str,
    table: gpd.GeoDataFrame,
    bands: tuple[str, ...] = BANDS,
) -> None:
    folder = catalogue.asset_folder(f"tiles-{SENSOR}", segment_id)
    group = zarr.create_group(folder / "pixels.zarr", attributes={"pixels": "reflectance"})
    side = SIZE // get_sensor(SENSOR).resolution
    shape = (len(table), len(bands), side, side)
    array = group.create_array(
        "reflectance",
        shape=shape,
        dtype="uint16",
        chunks=(1, *shape[1:]),
        shards=(BLOCK_ROWS, *shape[1:]),
    )
    array.attrs.update(bands=list(bands), scale_factor=1e-4, add_offset=0.0)
    write_geoparquet(folder / "index.parquet", table, {}, INDEX_SCHEMA)
    scenes = sorted({scene for scenes in table["source_scenes"] for scene in scenes})
    item = segment_item(
        segment_id,
        get_sensor(SENSOR),
        table,
        bands,
        {scene: f"{SCENES}/{scene}" for scene in scenes},
        folder,
    )
    catalogue.publish(f"tiles-{SENSOR}", item)


def segment_index(catalogue: Catalogue, segment: pystac.Item) -> gpd.GeoDataFrame:
    """The whole index of a published segment, with its ``segment_id``."""
    index = gpd.read_parquet(catalogue.asset_path(segment, "index"))
    return index.assign(segment_id=segment.id)


def make_model(bits: int = 64, seed: int = 1) -> Model:
    extractor = make_extractor(
        {"kind": "mosaiks", "bands": list(BANDS), "features": 16, "seed": seed}
    )
    torch.manual_seed(seed)
    return Model(
        method="mrhash",
        primary_sensor=SENSOR,
        secondary_sensors=("landsat-c2-l2",),
        tile_size=SIZE,
        extractor=extractor,
        scaling=FeatureScaling(np.zeros(extractor.dimensions, np.float32)),
        head=HashHead(extractor.dimensions, bits, hidden=8).eval(),
    )


def random_codes(count: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    words = -(-bits // 64)
    codes = np.random.default_rng(seed).integers(0, 2**64, (count, words), np.uint64)
    if bits % 64:
        codes[:, -1] &= np.uint64(2**64 - 2 ** (64 - bits % 64))
    return codes


def records(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
