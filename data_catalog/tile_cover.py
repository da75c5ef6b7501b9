"""Which tiles the places of an area belong to."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from data_catalog.errors import GridError
from data_catalog.grid import (
    BLOCK_TILES,
    DEFAULT_TILE_SIZE,
    FALSE_NORTHING_SOUTH,
    Tile,
    Zone,
    check_tile_size,
    tiles_at,
    zone_at,
)


def tiles_covering(area: BaseGeometry, size: int = DEFAULT_TILE_SIZE) -> list[Tile]:
    """The tiles that places of an area belong to, sorted: together they cover the area.

    Args:
        area: Any geometry in longitude and latitude. Longitudes beyond ±180° go on around the
            globe, so that an area over the antimeridian is written as one piece, for example from
            179° to 181°.
        size: Tile size, metres.

    Raises:
        GridError: A part of the area is outside the grid or the size does not fit it.
    """
    check_tile_size(size)
    if area.is_empty:
        return []
    west, south, east, north = area.bounds
    zone_at(west, south), zone_at(east, north)
    if east - west > 360.0:
        raise GridError(f"The area spans {east - west:g}° of longitude: at most 360° is possible.")
    parts = shapely.get_parts(shapely.get_parts(area))
    is_point = shapely.get_type_id(parts) == shapely.GeometryType.POINT
    lon, lat = shapely.get_coordinates(parts[is_point]).T
    tiles = set(tiles_at(lon, lat, size))
    if is_point.all():
        return sorted(tiles)
    if is_point.any():
        area = shapely.union_all(parts[~is_point])
    west, _, east, _ = area.bounds
    for strip in range(math.floor((west + 180.0) / 6.0), math.floor((east + 180.0) / 6.0) + 1):
        meridian = -180.0 + 6.0 * strip
        for hemisphere in "NS":
            tiles |= _tiles_of_strip(area, Zone(strip % 60 + 1, hemisphere), meridian, size)
    return sorted(tiles)


def _tiles_of_strip(area: BaseGeometry, zone: Zone, meridian: float, size: int) -> set[Tile]:
    low, high = zone.latitudes
    part = shapely.intersection(area, shapely.box(meridian, low, meridian + 6.0, high))
    if part.is_empty or (zone.hemisphere == "S" and part.bounds[3] == 0.0 == part.bounds[1]):
        return set()
    if part.geom_type in ("Point", "MultiPoint"):
        lon, lat = shapely.get_coordinates(part).T
        return set(tiles_at(lon, lat, size))
    part = shapely.transform(part, lambda xy: xy - [[meridian - zone.west, 0.0]])
    return _tiles_of_region(part, zone, size)


def _tiles_of_region(part: BaseGeometry, zone: Zone, size: int) -> set[Tile]:
    # A straight edge in degrees is bent in UTM: short pieces keep it within the added metre.
    bent = shapely.transform(
        shapely.segmentize(part, 0.01), lambda xy: np.stack(zone.project(*xy.T), 1)
    ).buffer(1.0)
    shapely.prepare(bent)
    west, south, east, north = bent.bounds
    row_ends = zone.rows([south, north], size)
    # From large squares down to tiles: small areas far apart leave most of a zone out at once.
    step = BLOCK_TILES**2
    side = size * step
    columns, rows = (
        places.ravel()
        for places in np.meshgrid(
            np.arange(int(west // side), int(east // side) + 1),
            np.arange(row_ends.min() // step, row_ends.max() // step + 1),
        )
    )
    while True:
        side = size * step
        w, s = columns * side, rows * side
        if zone.hemisphere == "S":
            s = FALSE_NORTHING_SOUTH - s - side
        held = shapely.intersects(bent, shapely.box(w, s, w + side, s + side))
        columns, rows = columns[held], rows[held]
        if step == 1:
            places = zip(columns.tolist(), rows.tolist(), strict=True)
            return {Tile(zone, column, row, size) for column, row in places}
        step //= BLOCK_TILES
        columns, rows = _divided(columns, rows)


def _divided(
    columns: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    right, up = np.divmod(np.arange(BLOCK_TILES**2), BLOCK_TILES)
    columns, rows = (places[:, None] * BLOCK_TILES for places in (columns, rows))
    return (columns + right).ravel(), (rows + up).ravel()
