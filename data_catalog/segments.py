"""Segments: the observations that one run wrote for one sensor, as a Zarr array and its index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import zarr
from numpy.typing import NDArray
from obstore.exceptions import BaseError
from zarr.codecs import BloscCodec, Crc32cCodec

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.grid import BLOCK_TILES
from data_catalog.reading import BlockObservations
from data_catalog.sensors import Sensor

BLOCK_ROWS = BLOCK_TILES**2
"""Rows of the array that one block takes: one shard."""

_ENCODING = {
    # A sparse shard is encoded ten times as fast as by zarr's own pipeline, a full one twice.
    "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
    # Several would write the tiles of a shard in another order every time.
    "threading.max_workers": 1,
}

INDEX_SCHEMA = pa.schema(
    [
        ("tile_id", pa.string()),
        ("row", pa.int64()),
        ("datetime", pa.timestamp("us", "UTC")),
        ("clear_fraction", pa.float32()),
        ("source_scenes", pa.list_(pa.string())),
        ("considered_scenes", pa.list_(pa.string())),
        ("state", pa.string()),
        ("reason", pa.string()),
    ]
)


def collection_of(sensor_id: str) -> str:
    """The collection that holds a sensor's segments."""
    return f"tiles-{sensor_id}"


def published_pixels(catalogue: Catalogue, sensor_id: str, segment_id: str) -> zarr.Array[Any]:
    """A published segment's array ``(tile, band, y, x)``, read-only.

    Raises:
        CatalogueError: There is no such array.
    """
    place = catalogue.store.array(f"{collection_of(sensor_id)}/{segment_id}", "pixels.zarr")
    try:
        if isinstance(place, Path):
            return _opened(place, "r")
        # Not by zarrs, which cannot read from there.
        return pixels_of(zarr.open_group(place, mode="r", use_consolidated=False))
    except (OSError, KeyError, ValueError, BaseError) as error:
        raise CatalogueError(
            f"Segment {segment_id} of {sensor_id} has no readable array of tiles ({error}): "
            f"see `rshash catalog verify {segment_id}`, and restore its files."
        ) from None


def open_pixels(folder: Path) -> zarr.Array[Any]:
    """A staged segment's array ``(tile, band, y, x)``, read-only.

    Raises:
        CatalogueError: There is no such array.
    """
    try:
        return _opened(folder / "pixels.zarr", "r")
    except (OSError, KeyError, ValueError) as error:
        raise CatalogueError(
            f"{folder} holds no readable pixels.zarr with an array of tiles ({error}): "
            "restore it, or, if it is not published yet, ingest again."
        ) from None


def pixels_of(group: zarr.Group) -> zarr.Array[Any]:
    """The array of tiles in a segment's group, which is named after what was measured."""
    array = group[str(group.attrs["pixels"])]
    assert isinstance(array, zarr.Array)
    return array


def stored_scale(array: zarr.Array[Any]) -> tuple[np.float32, np.float32]:
    """Scale and offset of a segment's array: what was measured is number x scale + offset."""
    scale, offset = (array.attrs[name] for name in ("scale_factor", "add_offset"))
    assert isinstance(scale, float) and isinstance(offset, float)
    return np.float32(scale), np.float32(offset)


def bands_of(array: zarr.Array[Any]) -> list[str]:
    """Canonical names of the bands that a segment's array holds, in order."""
    names = array.attrs["bands"]
    assert isinstance(names, list)
    return [str(name) for name in names]


def published_bands(segment: pystac.Item) -> set[str]:
    """Canonical names of the bands that a published segment holds."""
    return {band["name"] for band in segment.assets["pixels"].extra_fields["bands"]}


def published_composite(segment: pystac.Item) -> str:
    """How a published segment's tiles were put together: ``best`` or ``median``."""
    return str(segment.properties["rshash:composite"])


def stage_pixels(
    folder: Path, blocks: int, sensor: Sensor, bands: Sequence[str], tile_size: int
) -> zarr.Array[Any]:
    """Opens a segment's array for writing; makes it first if need be.

    Args:
        folder: The segment's folder.
        blocks: Blocks that the segment is for; each has 64 rows, which are one shard.
        sensor: The sensor.
        bands: Canonical names, in order.
        tile_size: Metres on a side.
    """
    path = folder / "pixels.zarr"
    with stac.locked(folder / ".lock"):
        if not (path / sensor.stored.quantity / "zarr.json").exists():
            _create(path, blocks, sensor, bands, tile_size)
            stac.sync_tree(path)
    return _opened(path, "r+")


def write_block(
    folder: Path, array: zarr.Array[Any], number: int, pixels: NDArray[np.uint16]
) -> None:
    """Writes a block's 64 tiles as one shard, durably.

    One writer must own the whole shard: writers of parts of one lose each other's tiles.

    Raises:
        OSError: The disk is full, say.
    """
    try:
        array[BLOCK_ROWS * number : BLOCK_ROWS * (number + 1)] = pixels
    except RuntimeError as error:  # zarrs's way to tell what the system says
        raise OSError(str(error)) from None
    shard = folder / "pixels.zarr" / array.basename / "c" / str(number)
    if shard.exists():  # a block without any pixel has none
        stac.sync_tree(shard)


def write_part(path: Path, block_number: int, observations: BlockObservations) -> None:
    """Writes a block's part of the index, in one step: once it is there, the block is done."""
    rows = [
        {
            "tile_id": o.tile.id,
            "row": BLOCK_ROWS * block_number + observations.block.position(o.tile),
            "datetime": o.moment,
            "clear_fraction": o.clear_fraction,
            "source_scenes": o.source_scenes,
            "considered_scenes": o.considered_scenes,
            "state": o.state,
            "reason": o.reason,
        }
        for o in observations.tiles
    ]
    failures = {"failures": json.dumps(observations.failures)}
    table = pa.Table.from_pylist(rows, INDEX_SCHEMA).replace_schema_metadata(failures)
    with stac.replacing(path) as staged:
        pq.write_table(table, staged)


def read_part(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """A block's part of the index, and the causes of failure by scene ID."""
    table = pq.read_table(path)
    failures: dict[str, str] = json.loads(table.schema.metadata[b"failures"])
    return table.replace_schema_metadata(None), failures


def index_columns(catalogue: Catalogue, segment: pystac.Item, columns: list[str]) -> pa.Table:
    """Some columns of the index of a published segment.

    Raises:
        CatalogueError: The file cannot be read.
    """
    path = catalogue.asset_path(segment, "index")
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CatalogueError(
            f"The index of tiles {path} cannot be read ({error}): restore it; `rshash catalog "
            f"verify {segment.id}` tells what else is broken."
        ) from error


def check_segment(folder: Path, index: pd.DataFrame) -> None:
    """Verifies a staged segment: each block's first valid tile can be read and holds pixels.

    Raises:
        CatalogueError: It cannot, or holds none.
    """
    array = open_pixels(folder)
    valid = index[index["state"] == "valid"]
    for tile_id, row in (
        valid.groupby(valid["row"] // BLOCK_ROWS)[["tile_id", "row"]].first().values
    ):
        if not _has_pixels(array, int(row)):
            raise CatalogueError(
                f"Tile {tile_id} is valid in the index but has no readable pixels in {folder}: "
                "check the disk and ingest again."
            )


def _opened(path: Path, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    # Shards go past the page cache: what writes one only pays for the cache's pages too.
    past_cache = mode == "r+" and _takes_direct_io(path / "zarr.json")
    with zarr.config.set({**_ENCODING, "codec_pipeline.direct_io": past_cache}):
        return pixels_of(zarr.open_group(path, mode=mode, use_consolidated=False))


def _takes_direct_io(file: Path) -> bool:
    """Whether the file's system can read and write without its cache."""
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_DIRECT))
    except (AttributeError, OSError):  # not Linux, or such a file system
        return False
    return True


def _has_pixels(array: zarr.Array[Any], row: int) -> bool:
    try:
        return bool(np.any(array[row]))
    except Exception:  # Every codec has errors of its own for a damaged shard.
        return False


def _create(path: Path, blocks: int, sensor: Sensor, bands: Iterable[str], tile_size: int) -> None:
    names = list(bands)
    side = tile_size // sensor.resolution
    group = zarr.open_group(
        path, mode="a", zarr_format=3, attributes={"pixels": sensor.stored.quantity}
    )
    group.create_array(
        sensor.stored.quantity,
        shape=(BLOCK_ROWS * blocks, len(names), side, side),
        chunks=(1, len(names), side, side),
        shards=(BLOCK_ROWS, len(names), side, side),
        dtype="uint16",
        fill_value=0,
        compressors=(
            BloscCodec(cname="lz4", clevel=9, shuffle="bitshuffle", typesize=2),
            # LZ4 decodes damaged bytes to other pixels without a word.
            Crc32cCodec(),
        ),
        dimension_names=("tile", "band", "y", "x"),
        attributes={
            "bands": names,
            "quantity": sensor.stored.quantity,
            "units": sensor.stored.unit,
            "scale_factor": sensor.stored.scale,
            "add_offset": sensor.stored.offset,
            "_FillValue": 0,
            "resolution": sensor.resolution,
            "tile_size": tile_size,
            "sensor": sensor.id,
            "license": sensor.license,
        },
    )
