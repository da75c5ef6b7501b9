"""Geometries as STAC and GeoParquet want them: longitudes within ±180°, cut at the antimeridian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

OUTLINE_VERTICES = 500
"""An outline with more than this is replaced by its convex hull: an item is read by people."""


def within_world(geometry: BaseGeometry) -> BaseGeometry:
    """The same region with longitudes within ±180°, in several parts where it must be cut."""
    west, _, east, _ = geometry.bounds
    if west >= -180.0 and east <= 180.0:
        return geometry
    turns = range(int((west + 180.0) // 360.0), int((east + 180.0) // 360.0) + 1)
    parts = [_turn(geometry, turn) for turn in turns]
    return shapely.union_all([part for part in parts if part.area > 0.0])


def _turn(geometry: BaseGeometry, turn: int) -> BaseGeometry:
    window = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
    part = shapely.intersection(geometry, window)
    return shapely.transform(part, lambda xy: xy - [[360.0 * turn, 0.0]])


def bounding_boxes(footprints: Sequence[BaseGeometry] | NDArray[np.object_]) -> NDArray[np.float64]:
    """West, south, east, north of each geometry, degrees; west > east where it crosses ±180°.

    Args:
        footprints: Geometries in one piece; longitudes may pass ±180°.

    Returns:
        float64, ``(n, 4)``.
    """
    boxes = shapely.bounds(np.asarray(footprints, object)).reshape(-1, 4)
    lon = boxes[:, [0, 2]]
    boxes[:, [0, 2]] = np.where(np.abs(lon) > 180.0, (lon + 180.0) % 360.0 - 180.0, lon)
    return boxes


def outline(footprints: Sequence[BaseGeometry]) -> tuple[BaseGeometry, list[float]]:
    """The region that footprints cover together, within ±180°, and its bounding box."""
    # Close the hairline gaps that rounding leaves between neighbours.
    grown = shapely.buffer(np.asarray(footprints, object), 1e-7, join_style="mitre")
    merged = shapely.buffer(shapely.union_all(grown), -1e-7, join_style="mitre")
    merged = shapely.simplify(merged, 1e-6)
    if shapely.get_num_coordinates(merged) > OUTLINE_VERTICES:
        merged = _side_by_side(merged).convex_hull
    merged = shapely.set_precision(within_world(merged), 1e-6)
    west, south, east, north = merged.bounds
    if west == -180.0 and east == 180.0:
        west, east = _crossing_span(shapely.bounds(shapely.get_parts(merged)))
    return merged, [float(v) for v in (west, south, east, north)]


def _side_by_side(geometry: BaseGeometry) -> BaseGeometry:
    """Parts on both sides of ±180° brought together: their hull does not span the globe."""
    west, _, east, _ = geometry.bounds
    if east - west <= 180.0:
        return geometry
    parts = shapely.get_parts(geometry)
    return shapely.union_all([translate(p, 360.0) if p.bounds[2] <= 0.0 else p for p in parts])


def _crossing_span(boxes: NDArray[np.float64]) -> tuple[float, float]:
    """West and east (smaller than west) around the widest gap that no part reaches into."""
    boxes = boxes[np.argsort(boxes[:, 0])]
    reached = np.maximum.accumulate(boxes[:, 2])
    gaps = boxes[1:, 0] - reached[:-1]
    if not len(gaps) or gaps.max() <= 0.0:
        return -180.0, 180.0
    widest = int(gaps.argmax())
    return float(boxes[widest + 1, 0]), float(reached[widest])
