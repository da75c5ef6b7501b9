"""What a source has where a search found nothing: told in the message, at the price of a few."""

from __future__ import annotations

import pystac
import shapely
from shapely.geometry.base import BaseGeometry

from data_catalog.errors import SourceError
from data_catalog.scenes import globe_copies, scene_datetime
from data_catalog.sensors import Sensor, known_sensors
from data_catalog.source_catalogue import SourceCatalogue


def told_instead(origin: SourceCatalogue, sensor: Sensor, area: BaseGeometry, period: str) -> str:
    """Other periods and other sensors that have scenes of an area, as sentences; may be empty.

    A request for each known sensor and each side of the period; what fails is left out. Where there
    are none, what the collection covers, if that is another region.
    """
    start, end = period.split("/")
    sides = [("before that", f"../{start}", start), ("after that", f"{end}/..", end)]
    found = [
        f"{side} ({scene_datetime(scene):%Y-%m-%d})"
        for side, when, limit in sides
        if limit != ".." and (scene := _some(origin, sensor, area, when))
    ]
    others = [
        other.id
        for other in known_sensors()
        if other.id != sensor.id and _some(origin, other, area, period)
    ]
    told = f" There are some {' and '.join(found)}." if found else ""
    told += f" Of other sensors it has {', '.join(others)}." if others else ""
    return told or _region(origin, sensor, area)


def _region(origin: SourceCatalogue, sensor: Sensor, area: BaseGeometry) -> str:
    try:
        box = origin.collection(sensor.collection(origin.profile)).extent.spatial.bboxes[0]
    except SourceError:
        return ""
    west, south, east, north = (*box[:2], *box[len(box) // 2 :][:2])  # heights may be among them
    region = shapely.box(west, south, east + 360.0 * (east < west), north)
    if any(region.intersects(copy) for copy in globe_copies(area)):
        return ""
    return f" All that it has lie within {west:g},{south:g},{east:g},{north:g}."


def _some(
    origin: SourceCatalogue, sensor: Sensor, area: BaseGeometry, period: str
) -> pystac.Item | None:
    try:
        return origin.finds_some(sensor, area, period)
    except SourceError:
        return None
