"""Coordinates of a segment's pixels by the CF conventions, for readers that know nothing of tiles.

Beside the pixels ``(tile, band, y, x)`` lie: ``tile`` (IDs) and ``band`` (names); ``easting (tile,
x)`` and ``northing (tile, y)``, the middles of pixels in metres of the tile's own zone, whose EPSG
code is ``epsg (tile)``; ``time``, ``clear_fraction`` and ``valid`` by tile; and, where all tiles
are of one zone, its ``spatial_ref``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from pyproj import CRS

from data_catalog.grid import BLOCK_TILES, Tile, parse_tile_id
from data_catalog.segments import BLOCK_ROWS, bands_of, pixels_of

NO_TIME = np.iinfo(np.int64).min
_ALONG = {"easting": "projection_x_coordinate", "northing": "projection_y_coordinate"}


def write_coordinates(folder: Path, index: pd.DataFrame) -> None:
    """Writes the coordinates of a staged segment.

    Args:
        folder: The segment's folder.
        index: Its index, with a row for at least one tile of every block.
    """
    group = zarr.open_group(folder / "pixels.zarr", mode="r+", use_consolidated=False)
    pixels = pixels_of(group)
    tiles = _tiles(index, pixels.shape[0])
    resolution = pixels.attrs["resolution"]
    assert isinstance(resolution, int)
    middles = resolution * (np.arange(pixels.shape[3]) + 0.5)
    bounds = np.array([tile.bounds for tile in tiles], np.float64)
    along = {"easting": bounds[:, :1] + middles, "northing": bounds[:, 3:] - middles}
    for (name, values), axis in zip(along.items(), ("x", "y"), strict=True):
        described = {"standard_name": _ALONG[name], "units": "m", "axis": axis.upper()}
        _write(group, name, values, ("tile", axis), described)
    _write(group, "tile", [tile.id for tile in tiles], ("tile",), {"long_name": "tile ID"})
    _write(group, "band", bands_of(pixels), ("band",), {"long_name": "band"})
    _write(group, "epsg", np.array([tile.zone.epsg for tile in tiles], np.int32), ("tile",), {})
    _write_index(group, index, len(tiles))
    names = ["easting", "northing", "epsg", "time", "clear_fraction", "valid"]
    zones = {tile.zone for tile in tiles}
    if len(zones) == 1:
        crs = CRS.from_epsg(zones.pop().epsg)
        _write(group, "spatial_ref", np.array(0, np.int32), (), crs.to_cf())
        pixels.attrs["grid_mapping"] = "spatial_ref"
        names.append("spatial_ref")
    pixels.attrs["coordinates"] = " ".join(names)
    group.attrs["Conventions"] = "CF-1.11"


def _write_index(group: zarr.Group, index: pd.DataFrame, rows: int) -> None:
    time = np.full(rows, NO_TIME, np.int64)
    clear, valid = np.zeros(rows, np.float32), np.zeros(rows, np.int8)
    at, is_valid = index["row"].to_numpy(), (index["state"] == "valid").to_numpy()
    seconds = pd.to_datetime(index["datetime"], utc=True).astype("datetime64[s, UTC]")
    time[at[is_valid]] = seconds[is_valid].astype(np.int64)
    clear[at], valid[at] = index["clear_fraction"], is_valid
    since = {"units": "seconds since 1970-01-01", "calendar": "standard", "_FillValue": NO_TIME}
    _write(group, "time", time, ("tile",), {"standard_name": "time", **since})
    _write(group, "clear_fraction", clear, ("tile",), {"units": "1"})
    flags = {"flag_values": [0, 1], "flag_meanings": "invalid valid"}
    _write(group, "valid", valid, ("tile",), flags)


def _tiles(index: pd.DataFrame, rows: int) -> list[Tile]:
    """The tile of every row, those included that were not asked for."""
    tiles: dict[int, Tile] = {}
    known = index.groupby(index["row"] // BLOCK_ROWS).first()
    for tile_id, row in zip(known["tile_id"], known["row"], strict=True):
        block, first = parse_tile_id(tile_id).block, row // BLOCK_ROWS * BLOCK_ROWS
        for y in range(BLOCK_TILES):
            for x in range(BLOCK_TILES):
                column, line = block.column * BLOCK_TILES + x, block.row * BLOCK_TILES + y
                tile = Tile(block.zone, column, line, block.size)
                tiles[first + block.position(tile)] = tile
    return [tiles[row] for row in range(rows)]


def _write(
    group: zarr.Group,
    name: str,
    values: NDArray[Any] | Sequence[Any],
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    content = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    array = group.create_array(
        name,
        shape=content.shape,
        chunks=tuple(min(size, 4096) for size in content.shape) or "auto",
        dtype=str if content.dtype == object else content.dtype,
        dimension_names=dimensions,
        attributes=attributes,
        overwrite=True,  # of a run that was killed here
    )
    array[...] = content
