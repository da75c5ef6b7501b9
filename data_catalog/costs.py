"""What an ingest will cost: bytes to fetch and to store, and time; refused where the disk is full.

The figures are estimates from the number of pixels:

- Fetched: of every block the mask of each of its scenes, and each band once, each with the edge of
  :data:`COG_BLOCK` pixels that comes along, compressed to :data:`FETCHED_BAND` and
  :data:`FETCHED_MASK` of their size. Tiles put together from several scenes need more; what lies
  outside a scene needs less.
- Stored: all pixels of all tiles, compressed to :data:`STORED`.
- Time: :data:`BYTES_PER_S` and :data:`BLOCKS_PER_S`, one after the other: an ordinary connection
  of 200 Mbit/s, and four readers of blocks that each take two seconds to ask and to resample.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.filesize import decimal

from data_catalog.errors import CatalogueError
from data_catalog.grid import parse_tile_id
from data_catalog.sensors import Sensor

COG_BLOCK = 512
"""Pixels on a side of the squares that cloud-optimised files are fetched in."""

FETCHED_BAND, FETCHED_MASK, STORED = 0.8, 0.1, 0.8
"""Compressed size as a share of the pixels' own: 16 bit of bands, 8 bit of masks, 16 bit stored."""

BYTES_PER_S, BLOCKS_PER_S = 25e6, 2.0


def fetched_bytes(
    sensor: Sensor, bands: Sequence[str], blocks: Mapping[str, Mapping[str, Sequence[str]]]
) -> int:
    """Bytes to fetch for blocks.

    Args:
        sensor: The sensor.
        bands: Canonical names.
        blocks: IDs of the scenes that may see a tile, by block ID and tile ID.
    """
    total = 0.0
    for tiles in blocks.values():
        west, south, east, north = zip(*(parse_tile_id(tile).bounds for tile in tiles), strict=True)
        width, height = max(east) - min(west), max(north) - min(south)

        def pixels(metres: int, width: int = width, height: int = height) -> int:
            return (width // metres + COG_BLOCK) * (height // metres + COG_BLOCK)

        total += FETCHED_BAND * 2 * sum(pixels(sensor.bands[band].resolution) for band in bands)
        if sensor.mask:
            scenes = len(set().union(*tiles.values()))
            total += FETCHED_MASK * scenes * pixels(sensor.mask.resolution)
    return int(total)


def stored_bytes(sensor: Sensor, bands: Sequence[str], tile_size: int, tiles: int) -> int:
    """Bytes that tiles will take in the catalogue."""
    return int(STORED * 2 * tiles * len(bands) * (tile_size // sensor.resolution) ** 2)


def seconds_for(fetched: int, blocks: int) -> int:
    """Seconds that fetching bytes in blocks takes."""
    return round(fetched / BYTES_PER_S + blocks / BLOCKS_PER_S)


def check_room(catalog: Path, needed: int) -> None:
    """Refuses what the disk of a catalogue has no room for.

    Args:
        catalog: The catalogue's folder; it need not be there yet.
        needed: Bytes.

    Raises:
        CatalogueError: Less is free.
    """
    folder = next(path for path in (catalog, *catalog.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CatalogueError(
            f"The tiles would take about {decimal(needed)}, but only {decimal(free)} are free at "
            f"{folder}: make room, name another folder with --catalog, or take a smaller --area "
            "or fewer --bands."
        )
