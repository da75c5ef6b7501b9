"""Where the tiles of code tables lie, worked out from their IDs, for as few of them as possible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from data_catalog.geometry import within_world
from data_catalog.grid import BLOCK_TILES, Tile
from data_catalog.query_filters import Filters
from data_catalog.query_tables import CodeTables

GLOBE = Geod(ellps="WGS84")
_METRES_PER_DEGREE = 110_500.0
"""A little less than a degree of latitude has anywhere."""

Places = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Rows, and longitude and latitude of their tiles' centres, degrees."""


def allowed_rows(tables: CodeTables, filters: Filters) -> NDArray[np.bool_] | None:
    """The rows that pass what filters say of the found tile alone; None where all do."""
    if not filters.apply_to_tiles:
        return None
    allowed = np.ones(len(tables), bool)
    if filters.region is not None:
        allowed[:] = False
        allowed[rows_in(tables, filters.region)] = True
    if filters.period is not None:
        first, last = (pa.scalar(moment, pa.timestamp("us", "UTC")) for moment in filters.period)
        moments = tables.column("datetime")
        within = pc.and_(pc.greater_equal(moments, first), pc.less_equal(moments, last))
        allowed &= within.to_numpy()
    if filters.minimum_clear > 0.0:
        clear = tables.column("clear_fraction").to_numpy()
        allowed &= clear >= np.float32(filters.minimum_clear)
    return allowed


def rows_in(tables: CodeTables, region: BaseGeometry) -> NDArray[np.int64]:
    """Rows of the tiles whose centres lie in a region, longitude and latitude."""
    parts = shapely.get_parts(within_world(region))
    shapely.prepare(parts)
    found = [np.empty(0, np.int64)]
    for part in parts:
        for rows, lon, lat in _near(tables, *part.bounds):
            found.append(rows[shapely.intersects_xy(part, lon, lat)])
    return np.unique(np.concatenate(found))


def rows_within(tables: CodeTables, place: tuple[float, float], metres: float) -> NDArray[np.int64]:
    """Rows of the tiles whose centres are closer to a place (lon, lat) than so many metres."""
    lon, lat = place
    up = metres / _METRES_PER_DEGREE
    south, north = max(lat - up, -90.0), min(lat + up, 90.0)
    # A parallel's degree is shortest on the side of the pole.
    shortest = np.cos(np.radians(max(abs(south), abs(north))))
    aside = up / shortest if up < 180.0 * shortest else 180.0
    disc = within_world(shapely.box(lon - aside, south, lon + aside, north))
    found = [np.empty(0, np.int64)]
    for part in shapely.get_parts(disc):
        for rows, lons, lats in _near(tables, *part.bounds):
            away = distances_m(place, lons, lats)
            found.append(rows[away < metres])
    return np.unique(np.concatenate(found))


def rows_of_block(tables: CodeTables, tile: Tile) -> NDArray[np.int64]:
    """Rows of the tiles that belong to a tile's block."""
    block = tile.block
    rows = [
        tables.row(Tile(tile.zone, column, row, tile.size).id)
        for column in range(block.column * BLOCK_TILES, (block.column + 1) * BLOCK_TILES)
        for row in range(block.row * BLOCK_TILES, (block.row + 1) * BLOCK_TILES)
    ]
    return np.array([row for row in rows if row is not None], np.int64)


def nearest_row(tables: CodeTables, place: tuple[float, float]) -> tuple[int, float]:
    """The row of the tile whose centre is nearest to a place (lon, lat), and metres to it."""
    everything = [
        (int(rows[away.argmin()]), float(away.min()))
        for rows, lon, lat in _near(tables, -180.0, -90.0, 180.0, 90.0)
        for away in [distances_m(place, lon, lat)]
    ]
    return min(everything, key=lambda found: found[1])


def distances_m(
    place: tuple[float, float], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Metres on the globe from a place (lon, lat) to others."""
    own_lon, own_lat = (np.full(len(lon), degrees) for degrees in place)
    return np.asarray(GLOBE.inv(own_lon, own_lat, lon, lat)[2], float)


def _near(
    tables: CodeTables, west: float, south: float, east: float, north: float
) -> Iterator[Places]:
    for number in tables.groups_near(west, south, east, north):
        first, lon, lat = tables.centres(number)
        inside = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
        if inside.any():
            yield first + np.flatnonzero(inside), lon[inside], lat[inside]
