"""What a source has where a search found nothing: told in the message, at the price of a few."""

from __future__ import annotations

import pystac
from shapely.geometry.base import BaseGeometry

from data_catalog.errors import SourceError
from data_catalog.scenes import scene_datetime
from data_catalog.sensors import Sensor, known_sensors
from data_catalog.source_catalogue import SourceCatalogue


def told_instead(origin: SourceCatalogue, sensor: Sensor, area: BaseGeometry, period: str) -> str:
    """Other periods and other sensors that have scenes of an area, as sentences; may be empty.

    A request for each known sensor and each side of the period; what fails is left out.
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
    return told + (f" Of other sensors it has {', '.join(others)}." if others else "")


def _some(
    origin: SourceCatalogue, sensor: Sensor, area: BaseGeometry, period: str
) -> pystac.Item | None:
    try:
        return origin.finds_some(sensor, area, period)
    except SourceError:
        return None
