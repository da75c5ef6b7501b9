"""Where to search for scenes: the ground of tiles, in few and simple geometries."""

from __future__ import annotations

from collections.abc import Iterator

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from data_catalog.grid import BLOCK_TILES, Tile, footprints
from data_catalog.scenes import globe_copies

REQUEST_VERTICES = 300
"""Vertices of a request's geometry at the most: what every server takes, and searches quickly."""

SEARCH_REQUESTS = 8
"""Requests of a search at the most, unless the area lies over the antimeridian or has pages."""

EXACT_TILES = 1000
"""More tiles than these are searched for by the squares of their blocks."""

SIMPLIFIED_PARTS = 1000
"""An area of more parts than these is searched for by coarse squares at once."""

_MARGINS_DEG = (0.002, 0.008, 0.03, 0.12, 0.5)
_SQUARES_DEG = (1, 2, 4, 8, 16, 32)

BENT_LITTLE_M = 7680
"""Size of the largest tiles whose blocks' edges are nearly straight in degrees."""


def ground_of(tiles: list[Tile]) -> BaseGeometry:
    """A region that holds all places of tiles, longitude and latitude; it may be a little larger.

    Scenes that see a tile touch it, even where they miss the place that the tile was asked for.
    """
    if len(tiles) > EXACT_TILES and tiles[0].size <= BENT_LITTLE_M:
        size = tiles[0].size * BLOCK_TILES
        tiles = [Tile(b.zone, b.column, b.row, size) for b in {tile.block for tile in tiles}]
    squares = np.array(footprints(tiles))
    # Holds the squares' bent edges, and closes the hairline gaps between neighbours.
    sides = shapely.bounds(squares) @ np.array([[-1, 0], [0, -1], [1, 0], [0, 1]])
    grown = shapely.buffer(squares, 0.01 * sides.max(axis=1), join_style="mitre")
    return shapely.union_all(grown)


def search_areas(area: BaseGeometry) -> list[BaseGeometry]:
    """Few simple geometries that together hold an area: one for each request of a search.

    Args:
        area: Longitude and latitude; may go past ±180°.

    Returns:
        Geometries within ±180° of :data:`REQUEST_VERTICES` vertices at the most, the area itself
        where it is that simple; together they are as small as :data:`SEARCH_REQUESTS` allow.
    """
    parts = shapely.get_parts(area)
    if not _is_simple(parts):
        parts = next(filter(_is_simple, _ever_simpler(area)), [shapely.box(*area.bounds)])
    halves = [half for part in parts for half in _within_180(part)]
    return [shapely.union_all(group) for group in _groups(halves)]


def _is_simple(parts: NDArray[np.object_]) -> bool:
    vertices = shapely.get_num_coordinates(parts)
    most = REQUEST_VERTICES * (SEARCH_REQUESTS - 1)
    return bool(vertices.max() <= REQUEST_VERTICES and vertices.sum() <= most)


def _ever_simpler(area: BaseGeometry) -> Iterator[NDArray[np.object_]]:
    parts = shapely.get_parts(area)
    if len(parts) <= SIMPLIFIED_PARTS:
        for margin in _MARGINS_DEG:
            # Simplifying moves an edge by less than the margin: no ground is lost.
            grown = shapely.buffer(area, 1.01 * margin, quad_segs=1, join_style="mitre")
            yield shapely.get_parts(shapely.simplify(grown, margin))
    for side in _SQUARES_DEG:
        low, high = np.split(shapely.bounds(parts), 2, axis=1)
        corners = np.hstack([np.floor(low / side), np.ceil(high / side)]) * side
        boxes = shapely.box(*np.unique(corners, axis=0).T)
        yield shapely.get_parts(shapely.union_all(boxes))


def _groups(parts: list[BaseGeometry]) -> list[list[BaseGeometry]]:
    """Neighbours together, as many as a request takes."""
    if len(parts) > 1:
        parts = list(np.array(parts)[np.argsort(gpd.GeoSeries(parts).hilbert_distance())])
    groups: list[list[BaseGeometry]] = [[]]
    room = REQUEST_VERTICES
    for part in parts:
        vertices = int(shapely.get_num_coordinates(part))
        if vertices > room:
            groups.append([])
            room = REQUEST_VERTICES
        groups[-1].append(part)
        room -= vertices
    return [group for group in groups if group]


def _within_180(area: BaseGeometry) -> list[BaseGeometry]:
    world = shapely.box(-180.0, -90.0, 180.0, 90.0)
    if world.contains(area):
        return [area]
    # A copy that only touches ±180° adds nothing: the meridian is in both halves.
    parts = [shapely.intersection(world, copy) for copy in globe_copies(area)]
    return [p for p in parts if not p.is_empty and not (p.area == 0.0 and area.area > 0.0)]
