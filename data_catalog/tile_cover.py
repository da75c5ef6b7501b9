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
    Tile,
    Zone,
    check_tile_size,
    tiles_at,
    zone_at,
)

Places = NDArray[np.int64]
"""Columns and rows of a zone's squares, ``(n, 2)``."""


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
    tiles = tiles_at(lon, lat, size)
    if is_point.all():
        return sorted(set(tiles))
    if is_point.any():
        area = shapely.union_all(parts[~is_point])
    west, _, east, _ = area.bounds
    places: dict[Zone, list[Places]] = {}
    for strip in range(math.floor((west + 180.0) / 6.0), math.floor((east + 180.0) / 6.0) + 1):
        meridian = -180.0 + 6.0 * strip
        for hemisphere in "NS":
            zone = Zone(strip % 60 + 1, hemisphere)
            places.setdefault(zone, []).append(_places_of_strip(area, zone, meridian, size))
    for tile in tiles:
        places.setdefault(tile.zone, []).append(np.array([[tile.column, tile.row]]))
    return [
        Tile(zone, column, row, size)
        for zone in sorted(places)
        for column, row in np.unique(np.concatenate(places[zone]), axis=0).tolist()
    ]


def _places_of_strip(area: BaseGeometry, zone: Zone, meridian: float, size: int) -> Places:
    low, high = zone.latitudes
    part = shapely.intersection(area, shapely.box(meridian, low, meridian + 6.0, high))
    if part.is_empty or (zone.hemisphere == "S" and part.bounds[3] == 0.0 == part.bounds[1]):
        return np.zeros((0, 2), np.int64)
    part = shapely.transform(part, lambda xy: xy - [[meridian - zone.west, 0.0]])
    if part.geom_type in ("Point", "MultiPoint"):
        easting, northing = zone.project(*shapely.get_coordinates(part).T)
        columns = np.floor(easting / size).astype(np.int64)
        return np.stack([columns, zone.rows(northing, size)], 1)
    return _places_of_region(part, zone, size)


def _places_of_region(part: BaseGeometry, zone: Zone, size: int) -> Places:
    # A straight edge in degrees is bent in UTM: short pieces keep it within the added metre.
    bent = shapely.transform(
        shapely.segmentize(part, 0.01), lambda xy: np.stack(zone.project(*xy.T), 1)
    ).buffer(1.0)
    shapely.prepare(bent)
    west, south, east, north = bent.bounds
    row_ends = zone.rows([south, north], size)
    # From large squares down to tiles: small areas far apart leave most of a zone out at once, and
    # of a square that lies inside of the area nothing more is asked.
    step = BLOCK_TILES**2
    side = size * step
    squares = np.stack(
        np.meshgrid(
            np.arange(int(west // side), int(east // side) + 1),
            np.arange(row_ends.min() // step, row_ends.max() // step + 1),
        ),
        -1,
    ).reshape(-1, 2)
    inner: list[Places] = []
    while True:
        w, s = squares[:, 0] * size * step, zone.row_to_northing(squares[:, 1], size * step)
        boxes = shapely.box(w, s, w + size * step, s + size * step)
        touched = shapely.intersects(bent, boxes)
        if step == 1:
            return np.concatenate([squares[touched], *inner])
        whole = np.zeros_like(touched)
        whole[touched] = shapely.contains_properly(bent, boxes[touched])
        inner.append(_divided(squares[whole], step))
        squares = _divided(squares[touched & ~whole], BLOCK_TILES)
        step //= BLOCK_TILES


def _divided(squares: Places, by: int) -> Places:
    within = np.stack(np.divmod(np.arange(by**2), by), 1)
    return (squares[:, None] * by + within).reshape(-1, 2)
