"""What a request may ask for, checked before any work; and the filters that it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import Path, Query, Request
from shapely.geometry.base import BaseGeometry

from data_catalog import grid
from data_catalog.areas import parse_area, parse_period
from data_catalog.errors import AreaError, GridError
from data_catalog.grid import EXAMPLE_ID, parse_tile_id
from data_catalog.query import PublishedCodes
from data_catalog.query_filters import Filters
from data_catalog.sensor_files import nearest
from data_catalog.service.conditional import Current
from data_catalog.service.problems import ServiceError

MOST_TILES = 1000
"""Largest number of similar tiles."""

MOST_EXAMPLES = 20
TILE_PATTERN = "^UTM[0-9]{2,6}-[0-9]{2}[NS]_[0-9]{4,6}_[0-9]{4,6}$"
_NUMBER = r"-?[0-9]{1,3}(\.[0-9]{1,15})?"
BBOX_PATTERN = f"^{_NUMBER}(,{_NUMBER}){{3}}$"

TileId = Annotated[
    str,
    Path(description="Tile ID, the STAC `grid:code`.", examples=[EXAMPLE_ID], max_length=40),
]
Examples = Annotated[
    list[Annotated[str, Query(pattern=TILE_PATTERN)]],
    Query(description="Tile IDs.", max_length=MOST_EXAMPLES),
]
K = Annotated[int, Query(description="How many tiles to find.", ge=1, le=MOST_TILES)]
Radius = Annotated[int | None, Query(description="Only tiles within so many bits.", ge=0, le=1024)]
Limit = Annotated[int, Query(description="How many tiles a page has.", ge=1, le=MOST_TILES)]
Offset = Annotated[int, Query(description="Tiles to pass over.", ge=0, le=MOST_TILES)]
BBOX = Query(
    description="`west,south,east,north` in degrees; over the antimeridian west > east.",
    # Checked by `bounds`, whose refusal says more than a pattern.
    json_schema_extra={"pattern": BBOX_PATTERN},
    max_length=100,
    examples=["8.9,48.4,9.3,48.6"],
)
Period = Annotated[
    str | None,
    Query(
        description="`start/end` of dates or moments, one of which may be `..`; or one day.",
        max_length=64,
        examples=["2024-06-01/2024-08-31"],
    ),
]
Clear = Annotated[float, Query(description="Smallest clear fraction.", ge=0, le=1)]
Distance = Annotated[
    float,
    Query(description="Leave out tiles nearer than this, in metres.", ge=0, le=20_100_000),
]
OutsideBlock = Annotated[
    bool, Query(description="Leave out the tiles of the query's own block of 8 × 8 tiles.")
]

T = TypeVar("T")


@dataclass(frozen=True)
class Search:
    """What similar tiles are searched for; equal ones have equal answers.

    Attributes:
        k: How many.
        radius: Only tiles within so many bits.
        bbox: Text of the bounding box.
        period: Text of the period.
        minimum_clear: Smallest clear fraction.
        minimum_distance: Metres.
        outside_block: Whether the query's own block is left out.
    """

    k: int
    radius: int | None
    bbox: str | None
    period: str | None
    minimum_clear: float
    minimum_distance: float
    outside_block: bool

    def filters(self) -> Filters:
        """The filters.

        Raises:
            ServiceError: The bounding box or the period makes no sense.
        """
        return Filters(
            region=_region(self.bbox) if self.bbox else None,
            period=_moments(self.period) if self.period else None,
            minimum_clear=self.minimum_clear,
            minimum_distance_m=self.minimum_distance,
            outside_block=self.outside_block,
        )


async def search(
    snapshot: Current,
    k: K = 10,
    radius: Radius = None,
    bbox: Annotated[str | None, BBOX] = None,
    period: Period = None,
    minimum_clear: Clear = 0.0,
    minimum_distance: Distance = 0.0,
    outside_block: OutsideBlock = False,
) -> Search:
    """The query parameters of a search.

    Raises:
        ServiceError: The radius is beyond the codes' bits.
    """
    bits = snapshot.codes.bits
    if radius is not None and radius > bits:
        raise ServiceError(
            422, f"The codes have {bits} bits: expected a radius of 0 to {bits}, found {radius}."
        )
    if period and period.strip().startswith("P"):
        raise ServiceError(
            422, "A duration means other days every day: give the period as 'start/end'."
        )
    return Search(k, radius, bbox, period, minimum_clear, minimum_distance, outside_block)


def bounds(text: str) -> tuple[float, float, float, float]:
    """West, south, east and north of a bounding box's text, degrees.

    Raises:
        ServiceError: The box is none, or lies outside the grid.
    """
    _region(text)
    west, south, east, north = (float(part) for part in text.split(","))
    return west, south, east, north


def published_tile(codes: PublishedCodes, text: str) -> str:
    """The ID of a tile that has a code.

    Raises:
        ServiceError: The text is no tile ID, or the tile has no code.
    """
    tile = _understood(parse_tile_id, text)
    if tile.id not in codes:
        # Without the nearest that has one, which takes a second among millions of tiles.
        raise ServiceError(
            404,
            f"Tile {tile.id} has no published code of {codes.model_id}: pick one from the map, or "
            "from the list of a region's at /tiles?bbox=west,south,east,north.",
        )
    return tile.id


def tile_at(codes: PublishedCodes, lon: float, lat: float) -> str:
    """The ID of the tile at a place.

    Raises:
        ServiceError: The tile has no code.
    """
    return published_tile(codes, grid.tile_at(lon, lat, codes.tile_size).id)


async def known_parameters(request: Request) -> None:
    """Refuses what no route reads: a misspelt filter would go unnoticed.

    Raises:
        ServiceError: A query parameter is unknown.
    """
    path, method = request.scope["route"].path, request.method.lower()
    described = request.app.openapi()["paths"][path][method].get("parameters", [])
    known = [parameter["name"] for parameter in described if parameter["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            raise ServiceError(
                422,
                f"There is no parameter {name[:40]!r}{nearest(name[:40], known)}: "
                f"expected {', '.join(known) or 'none'}.",
            )


def _region(text: str) -> BaseGeometry:
    # Before it is parsed: elsewhere an area may also be the path of a file.
    if not re.fullmatch(BBOX_PATTERN, text):
        raise ServiceError(
            422,
            f"Area {text!r} is not understood: expected 'west,south,east,north' in degrees, such "
            "as '8.9,48.4,9.3,48.6'.",
        )
    return _understood(parse_area, text)


def _moments(text: str) -> tuple[datetime, datetime]:
    first, last = _understood(parse_period, text).split("/")
    return (
        datetime.min.replace(tzinfo=UTC) if first == ".." else datetime.fromisoformat(first),
        datetime.max.replace(tzinfo=UTC) if last == ".." else datetime.fromisoformat(last),
    )


def _understood(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except (AreaError, GridError) as error:
        raise ServiceError(422, str(error)) from error
