"""The demonstration world's place on the globe and the scenes that satellites took of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil, floor
from typing import TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from data_catalog.errors import GridError
from data_catalog.grid import BLOCK_TILES, DEFAULT_TILE_SIZE, FALSE_NORTHING_SOUTH, Tile, Zone

FloatArray: TypeAlias = NDArray[np.float64]

MARGIN = 60
"""Metres of ground beyond the tiles: Landsat's pixels reach over their edges."""


@dataclass(frozen=True)
class World:
    """A square of tiles: the place and size of a demonstration world.

    Attributes:
        zone: UTM zone.
        column: Westernmost column of the tile grid.
        row: Southernmost row in the north; the row nearest to the equator in the south.
        tiles: Tiles on a side.
        seed: Of the landscape and the weather.
        tile_size: Metres.
    """

    zone: Zone = field(default_factory=lambda: Zone(32, "N"))
    column: int = 37 * BLOCK_TILES
    row: int = 345 * BLOCK_TILES
    tiles: int = 20
    seed: int = 7
    tile_size: int = DEFAULT_TILE_SIZE

    def __post_init__(self) -> None:
        if not 1 <= self.tiles <= 40:
            raise GridError(f"A demonstration world has 1 to 40 tiles on a side, not {self.tiles}.")

    @property
    def all_tiles(self) -> list[Tile]:
        """The world's tiles, sorted."""
        steps = range(self.tiles)
        return [
            Tile(self.zone, self.column + i, self.row + j, self.tile_size)
            for i in steps
            for j in steps
        ]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north in metres; northings from the equator, negative in the south."""
        side = self.tiles * self.tile_size
        west, south = self.column * self.tile_size, self.row * self.tile_size
        if self.zone.hemisphere == "S":
            south = -south - side
        return west, south, west + side, south + side

    @property
    def ground_origin(self) -> tuple[int, int]:
        """West and north of the ground's first pixel, metres, northing from the equator."""
        west, _, _, north = self.bounds
        return west - MARGIN, north + MARGIN

    @property
    def side(self) -> int:
        """Pixels of the ground on a side, 10 m each."""
        return (self.tiles * self.tile_size + 2 * MARGIN) // 10

    def lonlat(self, shape: BaseGeometry) -> BaseGeometry:
        """A shape in metres from the equator as one in longitude and latitude."""
        shift = FALSE_NORTHING_SOUTH if self.zone.hemisphere == "S" else 0

        def unproject(xy: np.ndarray) -> np.ndarray:
            lon, lat = self.zone.unproject(xy[:, 0], xy[:, 1] + shift)
            return np.stack([lon, lat], 1)

        return shapely.transform(shape, unproject)


@dataclass(frozen=True)
class Acquisition:
    """One pass of a satellite over the world.

    Attributes:
        sensor: sentinel-2-l2a or landsat-c2-l2.
        platform: As in the items' IDs: S2A, S2B, LC08, LC09.
        time: When the scenes were taken.
        cloudiness: Share of the sky that clouds hide.
        swath: Share of the world's width where the swath begins and ends, at mid-height.
        track: Sentinel-2: relative orbit. Landsat: paths west (+) or east (-) of the world's own.
        only_last: Only the last granule (the north-easternmost) was delivered.
    """

    sensor: str
    platform: str
    time: datetime
    cloudiness: float
    swath: tuple[float, float] = (-9.0, 9.0)
    track: int = 0
    only_last: bool = False


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"

# fmt: off
NIGHTS: dict[int, tuple[Acquisition, ...]] = {
    1: (
        Acquisition(S2, "S2B", _utc("2024-06-18T10:15:59.024"), 0.13, track=65),
        Acquisition(S2, "S2A", _utc("2024-06-20T10:06:01.024"), 0.40, (0.3, 9.0), track=22),
        Acquisition(LANDSAT, "LC09", _utc("2024-06-19T10:10:18.512331"), 0.10, (-9.0, 0.72)),
        Acquisition(LANDSAT, "LC08", _utc("2024-06-20T10:04:27.836"), 0.20, (0.2, 9.0), track=-1),
    ),
    2: (
        Acquisition(S2, "S2B", _utc("2024-07-28T10:15:59.024"), 0.06, track=65, only_last=True),
        Acquisition(LANDSAT, "LC09", _utc("2024-07-30T10:04:20.104"), 0.05, (0.2, 9.0), track=-1),
    ),
}
# fmt: on
"""What satellites took before each night."""


@dataclass(frozen=True)
class Extent:
    """The pixels of one scene: the part of it that lies on the world's ground.

    Attributes:
        west: Metres.
        north: Metres from the equator.
        width: Metres.
        height: Metres.
        name: MGRS tile, or WRS path and row.
    """

    west: int
    north: int
    width: int
    height: int
    name: str

    @property
    def box(self) -> Polygon:
        """The rectangle, metres from the equator."""
        return box(self.west, self.north - self.height, self.west + self.width, self.north)


def granules(world: World) -> list[Extent]:
    """Sentinel-2's granules over the world, cut to it: 109.8 km squares every 100 km."""
    west, south, east, north = world.bounds
    shift = FALSE_NORTHING_SOUTH if world.zone.hemisphere == "S" else 0
    found = []
    for i in range(floor((west - 109_800) / 1e5), ceil(east / 1e5)):
        for j in range(floor((south + shift) / 1e5), ceil((north + shift + 109_800) / 1e5) + 1):
            left = floor(i * 1e5 / 60) * 60
            top = ceil((j * 1e5 - shift) / 60) * 60
            x0, x1 = max(west, left), min(east, left + 109_800)
            y0, y1 = max(south, top - 109_800), min(north, top)
            if x1 > x0 and y1 > y0:
                name = mgrs_square(world.zone, i, j - 1, top - 55_000)
                found.append(Extent(x0, y1, x1 - x0, y1 - y0, name))
    return found


def mgrs_square(zone: Zone, column: int, row: int, northing: float) -> str:
    """Name of a 100 km square of the military grid.

    Args:
        zone: UTM zone.
        column: Easting of its western edge / 100 km.
        row: Northing of its southern edge / 100 km.
        northing: Of its middle, metres from the equator; gives the band of latitude.
    """
    columns = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")[(zone.number - 1) % 3]
    rows = "ABCDEFGHJKLMNPQRSTUV"
    start = 0 if zone.number % 2 else 5
    band = "CDEFGHJKLMNPQRSTUVWX"[int(np.clip((northing / 110_900 + 80) // 8, 0, 19))]
    return f"{zone.number:02d}{band}{columns[(column - 1) % 8]}{rows[(row + start) % 20]}"


def landsat_extent(world: World, track: int) -> Extent:
    """The Landsat scene over the world, cut to it; pixel edges lie 15 m off multiples of 30 m."""
    west, south, east, north = world.bounds
    left = floor((west - 15) / 30) * 30 + 15
    top = ceil((north - 15) / 30) * 30 + 15
    width = ceil((east - left) / 30) * 30
    height = ceil((top - south) / 30) * 30
    lon, lat = world.all_tiles[len(world.all_tiles) // 2].centre
    path, row = wrs_path_row(lon, lat)
    return Extent(left, top, width, height, f"{(path + track - 1) % 233 + 1:03d}{row:03d}")


def wrs_path_row(lon: float, lat: float) -> tuple[int, int]:
    """Path and row of the Landsat scene that is centred nearest to a place.

    The orbit is taken as a circle inclined by 98.2°, with 233 paths around the globe and 248 rows
    along each; path 1 crosses the equator southwards, at row 60, at 64.6° W.
    """
    inclination = np.radians(98.2)
    along = np.arcsin(np.clip(np.sin(np.radians(lat)) / np.sin(inclination), -1, 1))
    row = round(60 - np.degrees(along) * 248 / 360)
    # Going back along the orbit from the equator, the track moves east while the Earth turns below.
    offset = np.degrees(np.arctan(-np.cos(inclination) * np.tan(along)))
    offset += np.degrees(along) * (360 / 233 * 16 / 360)
    path = round((-64.6 - (lon - offset)) % 360 * 233 / 360)
    return path % 233 + 1, row


def swath_edges(
    world: World, acquisition: Acquisition, northing: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Where the swath begins and ends: eastings at northings from the equator, metres."""
    west, south, east, north = world.bounds
    lean = 0.22 * (northing - (south + north) / 2)
    first, last = (west + share * (east - west) for share in acquisition.swath)
    return first + lean, last + lean


def seen_part(world: World, acquisition: Acquisition, extent: Extent) -> Polygon:
    """The part of a scene inside the satellite's swath, metres from the equator."""
    ends = np.array([extent.north - extent.height, extent.north], float)
    first, last = swath_edges(world, acquisition, ends)
    left, right = zip(first, ends, strict=True), zip(last, ends, strict=True)
    return extent.box.intersection(Polygon([*left, *reversed(list(right))]))
