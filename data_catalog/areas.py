"""Areas and periods as users write them, checked before any work starts."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPoint
from shapely.geometry.base import BaseGeometry

from data_catalog.area_files import read_area_file, read_geojson
from data_catalog.errors import AreaError
from data_catalog.grid import NORTH_LIMIT, SOUTH_LIMIT

AREA_FORMS = (
    "'west,south,east,north' in degrees, points as 'lon,lat lon,lat', GeoJSON text, or the path "
    "of a CSV, GeoJSON or GeoParquet file"
)
PERIOD_FORMS = "'2024-06-01/2024-08-31', a day, a month or a year, or a duration such as 'P30D'"

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BBOX = re.compile(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*")
_POINTS = re.compile(rf"\s*{_NUMBER}\s*,\s*{_NUMBER}(?:[\s;]+{_NUMBER}\s*,\s*{_NUMBER})*\s*")
_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_DURATION = re.compile(r"P(\d{1,4})([DW])")


def parse_area(text: str | BaseGeometry, tile_size: int | None = None) -> BaseGeometry:
    """The geometry of an area in longitude and latitude, degrees.

    Longitudes are written from -180 to 180. A box whose west is greater than its east lies over
    the antimeridian; other geometries are cut there (RFC 7946).

    Args:
        text: A bounding box, points, GeoJSON text, or the path of a file as
            :func:`~data_catalog.area_files.read_area_file` takes it; a geometry, whose longitudes
            may go past ±180°, is checked and returned.
        tile_size: Metres that tiles have on a side, where the file holds tile IDs; None for any.

    Returns:
        One geometry; longitudes go past ±180° where the area lies over the antimeridian.

    Raises:
        AreaError: The text is none of these, is empty, or reaches outside the tile grid.
    """
    if isinstance(text, BaseGeometry):
        return _checked(text, text.geom_type)
    if match := _BBOX.fullmatch(text):
        return _parse_bbox(text, *map(float, match.groups()))
    if _POINTS.fullmatch(text):
        numbers = [float(n) for n in re.findall(_NUMBER, text)]
        _check_longitudes(text, numbers[::2])
        return _checked(MultiPoint(list(zip(numbers[::2], numbers[1::2], strict=True))), text)
    if text.lstrip().startswith("{"):
        return _joined(read_geojson(text, f"Area {_short(text)}"))
    return _joined(read_area_file(_existing_file(text), tile_size))


def parse_period(text: str) -> str:
    """A period as the closed interval that STAC searches take.

    Args:
        text: ``start/end`` of dates or moments (one end may be ``..``), a single year, month or
            day, or a duration in days or weeks (``P30D``, ``P4W``) that ends now.

    Returns:
        ``start/end`` in RFC 3339, UTC; an open end stays ``..``.

    Raises:
        AreaError: The text is no period, or its end comes before its start.
    """
    text = text.strip()
    if match := _DURATION.fullmatch(text):
        end = datetime.now(UTC).replace(microsecond=0)
        start = end - timedelta(days=int(match[1]) * (7 if match[2] == "W" else 1))
        return f"{_rfc3339(start)}/{_rfc3339(end)}"
    parts = text.split("/")
    if len(parts) > 2 or parts in (["..", ".."], [".."]):
        raise _no_period(text)
    first = None if parts[0] == ".." else _span(parts[0], text)[0]
    last = None if parts[-1] == ".." else _span(parts[-1], text)[1]
    if first and last and last < first:
        raise AreaError(f"Period {text!r} ends before it starts: write it as start/end.")
    return f"{_rfc3339(first)}/{_rfc3339(last)}"


def _parse_bbox(text: str, west: float, south: float, east: float, north: float) -> BaseGeometry:
    if south > north:
        raise AreaError(
            f"Area {text!r}: its south, {south:g}, lies north of its north, {north:g}: "
            "the order is west,south,east,north."
        )
    _check_longitudes(text, [west, east])
    if west > east:
        east += 360.0
    if west == east or south == north:
        raise AreaError(f"Area {text!r} has no extent: give a box with one, or points.")
    return _checked(shapely.box(west, south, east, north), text)


def _existing_file(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass
    raise AreaError(
        f"Area {_short(text)} is neither a file nor an area that can be read: expected "
        f"{AREA_FORMS}."
    )


def _joined(geometries: NDArray[np.object_]) -> BaseGeometry:
    if set(shapely.get_type_id(geometries)) == {shapely.GeometryType.POINT}:
        return shapely.multipoints(geometries)
    return shapely.union_all([_unwrapped(geometry) for geometry in geometries])


def _unwrapped(geometry: BaseGeometry) -> BaseGeometry:
    # RFC 7946 cuts an area over the antimeridian in two: the half beyond it is moved next to the
    # other.
    west, _, east, _ = geometry.bounds
    if geometry.geom_type.startswith("Multi") and west == -180.0 and east == 180.0:
        parts = [
            shapely.transform(part, lambda xy: np.add(xy, [360.0, 0.0]))
            if part.bounds[2] <= 0
            else part
            for part in geometry.geoms
        ]
        return shapely.union_all(parts)
    return geometry


def _check_longitudes(text: str, longitudes: list[float]) -> None:
    for lon in longitudes:
        if not -180.0 <= lon <= 180.0:
            raise AreaError(
                f"Area {_short(text)}: longitude {lon:g} is outside -180 to 180. Longitudes are "
                "degrees, come before latitudes, and a box over the antimeridian has its west "
                "greater than its east, such as 179,-17,-179,-16."
            )


def _checked(area: BaseGeometry, text: str) -> BaseGeometry:
    if area.is_empty:
        raise AreaError(f"Area {_short(text)} is empty: expected {AREA_FORMS}.")
    if not area.is_valid:
        raise AreaError(f"Area {_short(text)} is not valid: {shapely.is_valid_reason(area)}.")
    west, south, east, north = area.bounds
    if not all(map(math.isfinite, area.bounds)):
        raise AreaError(f"Area {_short(text)} holds coordinates that are not numbers.")
    if west < -360.0 or east > 540.0 or east - west > 360.0:
        raise AreaError(
            f"Area {_short(text)} reaches from longitude {west:g} to {east:g}: "
            "longitudes are degrees, from -180 to 180, and come before latitudes."
        )
    if south < SOUTH_LIMIT or north > NORTH_LIMIT:
        raise AreaError(
            f"Area {_short(text)} reaches from latitude {south:g} to {north:g}, outside the tile "
            f"grid ({SOUTH_LIMIT:g} to {NORTH_LIMIT:g}): cut it there. "
            "Longitudes come before latitudes."
        )
    return area


def _span(part: str, text: str) -> tuple[datetime, datetime]:
    try:
        if match := _DATE.fullmatch(part):
            return _days_of(*(int(group) if group else None for group in match.groups()))
        moment = datetime.fromisoformat(part)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _no_period(text) from None
    return moment, moment


def _days_of(
    year: int | None, month: int | None = None, day: int | None = None
) -> tuple[datetime, datetime]:
    assert year is not None
    start = datetime(year, month or 1, day or 1, tzinfo=UTC)
    try:
        if day:
            after = start + timedelta(days=1)
        elif month:
            after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        else:
            after = datetime(year + 1, 1, 1, tzinfo=UTC)
    except (OverflowError, ValueError):
        # Nothing comes after the year 9999.
        return start, datetime.max.replace(tzinfo=UTC)
    return start, after - timedelta(microseconds=1)


def _rfc3339(moment: datetime | None) -> str:
    return ".." if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _no_period(text: str) -> AreaError:
    return AreaError(f"Period {text!r} is not understood: expected {PERIOD_FORMS}.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
