"""The global tile grid: squares of the UTM zones' own coordinates, and their IDs.

Rows are counted from the equator, because Sentinel-2's pixel edges lie on multiples of 60 m from
there in both hemispheres: in its own zone every Sentinel-2 tile is an exact window of its scene.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from pyproj import Transformer
from shapely.geometry import Polygon

from data_catalog.errors import GridError

DEFAULT_TILE_SIZE = 1920
"""Metres on a side: 192 pixels at 10 m, 64 at 30 m, 32 at 60 m."""

TILE_SIZE_STEP = 60
BLOCK_TILES = 8
"""A block is this many tiles on a side."""

STRIP_ROWS = 4
"""Rows of blocks that are worked on together, column by column."""

SOUTH_LIMIT, NORTH_LIMIT = -80.0, 84.0
FALSE_NORTHING_SOUTH = 10_000_000
EXAMPLE_ID = "UTM1920-32N_0305_2770"

Counts = NDArray[np.int64]
Degrees = NDArray[np.float64]

_ID_PATTERN = re.compile(r"UTM(\d{2,6})-(\d{2})([NS])_(\d{4,6})_(\d{4,6})")


def check_tile_size(size: int) -> int:
    """Returns the tile size in metres if the grid allows it.

    Raises:
        GridError: The size is not a positive multiple of 60 m up to 99,960 m.
    """
    if size <= 0 or size % TILE_SIZE_STEP or size > 99_960:
        raise GridError(
            f"Tile size {size} m does not fit the sensors' pixels: "
            f"use a positive multiple of {TILE_SIZE_STEP} m up to 99960 m, "
            f"such as {min(max(round(size / TILE_SIZE_STEP), 1) * TILE_SIZE_STEP, 99_960)}; "
            f"the default is {DEFAULT_TILE_SIZE}."
        )
    return size


@dataclass(frozen=True, order=True, slots=True)
class Zone:
    """A UTM zone in one hemisphere."""

    number: int
    hemisphere: str

    @property
    def epsg(self) -> int:
        """EPSG code of the zone's projection on WGS 84."""
        return (32600 if self.hemisphere == "N" else 32700) + self.number

    @property
    def west(self) -> float:
        """The zone's western meridian, degrees."""
        return -180.0 + 6.0 * (self.number - 1)

    @property
    def latitudes(self) -> tuple[float, float]:
        """Southern and northern end of the zone's part of the grid, degrees."""
        return (0.0, NORTH_LIMIT) if self.hemisphere == "N" else (SOUTH_LIMIT, 0.0)

    def __str__(self) -> str:
        return f"{self.number:02d}{self.hemisphere}"

    def row_to_northing(self, row: Any, size: Any) -> Any:
        """Southern edge of a row of squares, or of an array of rows: metres in the projection."""
        return row * size if self.hemisphere == "N" else FALSE_NORTHING_SOUTH - (row + 1) * size

    def rows(self, northing: ArrayLike, size: int) -> NDArray[np.int64]:
        """Rows of the squares that hold the northings (metres), counted from the equator."""
        distance = np.asarray(northing, float)
        if self.hemisphere == "S":
            distance = FALSE_NORTHING_SOUTH - distance
        return np.maximum(np.floor(distance / size), 0).astype(np.int64)

    def project(
        self, lon: ArrayLike, lat: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting and northing (metres) of longitudes (degrees, any turn) and latitudes."""
        near = _near_meridian(np.asarray(lon, float), self.west + 3.0)
        easting, northing = _to_utm(self).transform(near, np.asarray(lat, float))
        return np.asarray(easting), np.asarray(northing)

    def unproject(
        self, easting: ArrayLike, northing: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude (degrees) of eastings and northings (metres)."""
        lon, lat = _to_utm(self).transform(
            np.asarray(easting, float), np.asarray(northing, float), direction="INVERSE"
        )
        return np.asarray(lon), np.asarray(lat)


@lru_cache(maxsize=128)
def _to_utm(zone: Zone) -> Transformer:
    return Transformer.from_crs(4326, zone.epsg, always_xy=True)


def zone_at(lon: float, lat: float) -> Zone:
    """The zone of a place: plain 6° zones, without the Norway and Svalbard exceptions.

    Raises:
        GridError: The latitude is outside the grid, or a coordinate is not a number.
    """
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise GridError(f"Longitude {lon}, latitude {lat}: both must be finite numbers of degrees.")
    if not SOUTH_LIMIT <= lat <= NORTH_LIMIT:
        raise GridError(
            f"Latitude {lat:g} is outside the tile grid, which reaches from 80° S to 84° N. "
            "Check that longitude comes first, latitude second."
        )
    wrapped = (lon + 180.0) % 360.0
    return Zone(min(int(wrapped // 6), 59) + 1, "N" if lat >= 0 else "S")


@dataclass(frozen=True, order=True, slots=True)
class Tile:
    """One square of the grid: the unit that gets a code.

    Attributes:
        zone: UTM zone and hemisphere.
        column: floor(easting / size).
        row: Squares from the equator, northwards in N, southwards in S.
        size: Metres on a side.
    """

    zone: Zone
    column: int
    row: int
    size: int = DEFAULT_TILE_SIZE

    @property
    def id(self) -> str:
        """The tile ID, which is the STAC ``grid:code``."""
        return f"UTM{self.size}-{self.zone}_{self.column:04d}_{self.row:04d}"

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north: metres in the projection ``zone.epsg``."""
        west = self.column * self.size
        south = self.zone.row_to_northing(self.row, self.size)
        return west, south, west + self.size, south + self.size

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude of the centre, degrees."""
        west, south, east, north = self.bounds
        lon, lat = self.zone.unproject((west + east) / 2, (south + north) / 2)
        return float(lon), float(lat)

    @property
    def footprint(self) -> Polygon:
        """The square in longitude and latitude.

        Corners beyond ±180° keep their sign of the zone's side, so that the polygon stays small:
        longitudes may lie a little outside [-180, 180].
        """
        return footprints([self])[0]

    @property
    def block(self) -> Block:
        """The block that holds the tile."""
        return Block(self.zone, self.column // BLOCK_TILES, self.row // BLOCK_TILES, self.size)


@dataclass(frozen=True, order=True, slots=True)
class Block:
    """8 × 8 tiles: the unit of reading, of writing and of scheduling."""

    zone: Zone
    column: int
    row: int
    size: int = DEFAULT_TILE_SIZE

    @property
    def id(self) -> str:
        """Zone, column and row of the block, for file names and reports."""
        return f"UTM{self.size}x{BLOCK_TILES}-{self.zone}_{self.column:04d}_{self.row:04d}"

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """West, south, east, north: metres in the projection ``zone.epsg``."""
        side = self.size * BLOCK_TILES
        west, south = self.column * side, self.zone.row_to_northing(self.row, side)
        return west, south, west + side, south + side

    def position(self, tile: Tile) -> int:
        """Where a tile stands in the block: 0 … 63, by row, then by column."""
        return (tile.row % BLOCK_TILES) * BLOCK_TILES + tile.column % BLOCK_TILES


def parse_tile_id(tile_id: str) -> Tile:
    """The tile of an ID.

    Raises:
        GridError: The ID is malformed; the message says in what.
    """
    match = _ID_PATTERN.fullmatch(tile_id)
    if match is None:
        capitals = tile_id.upper()
        if capitals != tile_id and _is_tile_id(capitals):
            raise GridError(
                f"Tile ID {tile_id!r} is malformed: write it in capitals, as {capitals}."
            )
        raise GridError(
            f"Tile ID {tile_id!r} is malformed: expected UTM<size>-<zone><N|S>_<column>_<row>, "
            f"for example {EXAMPLE_ID}."
        )
    size, number, hemisphere, column, row = match.groups()
    try:
        check_tile_size(int(size))
    except GridError as error:
        raise GridError(f"Tile ID {tile_id!r}: {error} A good ID is {EXAMPLE_ID}.") from None
    if not 1 <= int(number) <= 60:
        raise GridError(
            f"Tile ID {tile_id!r}: UTM zone {number} does not exist, zones are 01 to 60; "
            f"a good ID is {EXAMPLE_ID}."
        )
    tile = Tile(Zone(int(number), hemisphere), int(column), int(row), int(size))
    west, south, _, _ = tile.bounds
    if west >= 1_000_000 or not 0 <= south + tile.size <= FALSE_NORTHING_SOUTH:
        raise GridError(
            f"Tile ID {tile_id!r}: column {column}, row {row} lies outside zone {tile.zone}; "
            f"a good ID is {EXAMPLE_ID}."
        )
    if tile.id != tile_id:
        raise GridError(f"Tile ID {tile_id!r} is malformed: write it as {tile.id}.")
    return tile


def _is_tile_id(text: str) -> bool:
    try:
        parse_tile_id(text)
    except GridError:
        return False
    return True


def tile_at(lon: float, lat: float, size: int = DEFAULT_TILE_SIZE) -> Tile:
    """The one tile that a place belongs to.

    Args:
        lon: Longitude, degrees; any turn of the globe.
        lat: Latitude, degrees.
        size: Tile size, metres.

    Raises:
        GridError: The place is outside the grid or the size does not fit it.
    """
    return tiles_at(lon, lat, size)[0]


def tiles_at(lon: ArrayLike, lat: ArrayLike, size: int = DEFAULT_TILE_SIZE) -> list[Tile]:
    """The one tile that each of many places belongs to, in their order; else as :func:`tile_at`."""
    check_tile_size(size)
    lon, lat = np.atleast_1d(np.asarray(lon, float)), np.atleast_1d(np.asarray(lat, float))
    outside = ~(np.isfinite(lon) & (lat >= SOUTH_LIMIT) & (lat <= NORTH_LIMIT))
    if outside.any():
        zone_at(*(float(degrees[outside.argmax()]) for degrees in (lon, lat)))
    numbers = np.minimum((lon + 180.0) % 360.0 // 6, 59).astype(int) + 1
    tiles: list[Any] = [None] * len(lon)
    for number, is_north in sorted(set(zip(numbers.tolist(), (lat >= 0).tolist(), strict=True))):
        zone = Zone(number, "N" if is_north else "S")
        held = np.flatnonzero((numbers == number) & ((lat >= 0) == is_north))
        easting, northing = zone.project(lon[held], lat[held])
        columns = np.floor(easting / size).astype(int)
        rows = zone.rows(northing, size)
        for place, column, row in zip(held, columns.tolist(), rows.tolist(), strict=True):
            tiles[place] = Tile(zone, column, row, size)
    return tiles


def places_in(tiles: list[Tile]) -> NDArray[np.object_]:
    """A point that belongs to each tile; an empty point for a square wholly out of its zone."""
    places = np.full(len(tiles), shapely.Point(), object)
    for zone, held in _by_zone(tiles).items():
        low, high = zone.latitudes
        strip = shapely.box(zone.west, low, zone.west + 6.0, high)
        squares = np.array(footprints([tiles[i] for i in held]), object)
        places[held] = shapely.point_on_surface(shapely.intersection(squares, strip))
    return places


def footprints(tiles: list[Tile]) -> list[Polygon]:
    """The tiles' squares in longitude and latitude, one polygon a tile."""
    polygons = np.empty(len(tiles), object)
    for zone, held in _by_zone(tiles).items():
        columns, rows, sizes = np.array(
            [(tiles[i].column, tiles[i].row, tiles[i].size) for i in held]
        ).T
        polygons[held] = shapely.polygons(corners_of(zone, columns, rows, sizes))
    return list(polygons)


def corners_of(zone: Zone, columns: Counts, rows: Counts, size: int | Counts) -> Degrees:
    """Corners of a zone's squares, counter-clockwise from south-west.

    Longitudes are those of :attr:`Tile.footprint`.

    Args:
        zone: The zone.
        columns: Of the squares, int ``(n,)``.
        rows: Of the squares, int ``(n,)``.
        size: Metres on a side.

    Returns:
        Longitude and latitude, degrees, float64 ``(n, 4, 2)``.
    """
    west, south = columns * size, zone.row_to_northing(rows, size)
    east, north = west + size, south + size
    lon, lat = zone.unproject(
        np.stack([west, east, east, west], 1), np.stack([south, south, north, north], 1)
    )
    return np.stack([_near_meridian(lon, zone.west + 3.0), lat], -1)


def centres_of(zone: Zone, columns: Counts, rows: Counts, size: int | Counts) -> Degrees:
    """Centres of a zone's squares, as :func:`corners_of`: float64 ``(n, 2)``."""
    west, south = columns * size, zone.row_to_northing(rows, size)
    return np.stack(zone.unproject(west + size / 2, south + size / 2), -1)


def _by_zone(tiles: list[Tile]) -> dict[Zone, list[int]]:
    held: dict[Zone, list[int]] = {}
    for number, tile in enumerate(tiles):
        held.setdefault(tile.zone, []).append(number)
    return held


def _near_meridian(lon: NDArray[np.float64], meridian: float) -> NDArray[np.float64]:
    return meridian + (lon - meridian + 180.0) % 360.0 - 180.0


def blocks_of(tiles: list[Tile]) -> dict[Block, list[Tile]]:
    """Tiles grouped by block, both sorted: blocks by strips of four rows, in them by column.

    What neighbouring blocks share is then read at about the same time, in both directions.
    """
    groups: dict[Block, list[Tile]] = {}
    for tile in sorted(tiles):
        groups.setdefault(tile.block, []).append(tile)
    return dict(sorted(groups.items(), key=lambda group: _place_in_strips(group[0])))


def _place_in_strips(block: Block) -> tuple[Zone, int, int, int, int]:
    return block.zone, block.size, block.row // STRIP_ROWS, block.column, block.row
