"""What is known of every tile now: its newest valid observation, and its pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import current_view
from data_catalog.errors import CatalogueError
from data_catalog.grid import parse_tile_id
from data_catalog.segments import (
    BLOCK_ROWS,
    bands_of,
    published_pixels,
    stored_scale,
)
from data_catalog.sensors import get_sensor

READ_THREADS = 4


def current_observations(
    catalogue: Catalogue,
    sensor: str,
    tile_size: int | None = None,
    bands: Collection[str] = (),
) -> pd.DataFrame:
    """The newest valid observation of every tile that a sensor has seen, over all segments.

    Segments may hold different bands: those that lack one that is needed are passed over.

    Args:
        catalogue: Holds the segments.
        sensor: Sensor ID.
        tile_size: Only tiles of this size, metres; None for all.
        bands: Canonical names of the bands that an observation must have.

    Returns:
        A row per tile, sorted by ``tile_id``: ``segment_id``, ``row``, ``datetime``,
        ``clear_fraction`` and ``source_scenes``.
    """
    return current_view(catalogue, sensor, tile_size, bands).frame()


def passed_over(
    catalogue: Catalogue, sensor: str, tile_size: int, bands: Sequence[str]
) -> pd.DataFrame:
    """Observations that would be the newest of their tiles, did they not lack one of the bands.

    Args:
        catalogue: Holds the segments.
        sensor: Sensor ID.
        tile_size: Metres on a side.
        bands: Canonical names.

    Returns:
        As ``current_observations`` gives them.
    """
    usable = current_view(catalogue, sensor, tile_size, bands)
    if not usable.lacking:
        return usable.frame(np.empty(0, np.int64))
    newest = current_view(catalogue, sensor, tile_size)
    at = usable.positions(newest.tile_ids)
    same = at >= 0
    same[same] = usable.times[at[same]] == newest.times[same]
    return newest.frame(np.flatnonzero(~same))


def read_tiles(
    catalogue: Catalogue,
    sensor: str,
    observations: pd.DataFrame,
    bands: Sequence[str] | None = None,
) -> NDArray[np.float32]:
    """Pixels of observations, in their order.

    Args:
        catalogue: Holds the segments.
        sensor: Sensor ID.
        observations: Columns ``tile_id``, ``segment_id`` and ``row``; tiles of one size.
        bands: Canonical names; None for the sensor's default bands.

    Returns:
        float32 ``(n, band, y, x)``, in the unit of the sensor's ``stored``, such as reflectance;
        NaN where not observed.

    Raises:
        CatalogueError: A segment lacks a band, or the tiles differ in size.
        SensorError: The sensor has no such band.
    """
    names = get_sensor(sensor).check_bands(bands)
    sizes = {parse_tile_id(tile_id).size for tile_id in observations["tile_id"]}
    if len(sizes) > 1:
        raise CatalogueError(
            f"Tiles of {' and '.join(f'{s} m' for s in sorted(sizes))} cannot be read together: "
            "choose one tile size."
        )
    side = (sizes.pop() if sizes else 0) // get_sensor(sensor).resolution
    pixels = np.empty((len(observations), len(names), side, side), np.float32)
    segments = observations["segment_id"].to_numpy()
    for segment_id in dict.fromkeys(segments):
        at = np.flatnonzero(segments == segment_id)
        rows = observations["row"].to_numpy()[at]
        _read_segment(catalogue, sensor, str(segment_id), rows, names, pixels, at)
    return pixels


def _read_segment(
    catalogue: Catalogue,
    sensor: str,
    segment_id: str,
    rows: NDArray[np.int64],
    names: tuple[str, ...],
    pixels: NDArray[np.float32],
    at: NDArray[np.intp],
) -> None:
    array = published_pixels(catalogue, sensor, segment_id)
    held = bands_of(array)
    lacking = [name for name in names if name not in held]
    if lacking:
        raise CatalogueError(
            f"Segment {segment_id} of {sensor} holds the bands {', '.join(held)}, not "
            f"{', '.join(lacking)}: ingest the area again with --bands {' '.join(names)}."
        )
    chosen = [held.index(name) for name in names]
    scale, offset = stored_scale(array)

    def read(places: NDArray[np.intp]) -> None:
        try:
            numbers = np.asarray(array[rows[places[0]] : rows[places[-1]] + 1])
        except Exception as error:  # Every codec has errors of its own for a damaged shard.
            raise CatalogueError(
                f"Pixels of segment {segment_id} of {sensor} cannot be read ({error}): see "
                f"`rshash catalog verify {segment_id}`, and restore its files."
            ) from error
        for tile, target in zip(numbers, at[places], strict=True):
            found = tile[chosen]
            np.multiply(found, scale, out=pixels[target])
            if offset:
                pixels[target] += offset
            if not found.all():
                pixels[target][found == 0] = np.nan

    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(read, _runs(rows)))


def _runs(rows: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Places of rows that follow each other, at most a shard's worth.

    Slices, since orthogonal indexing decodes a shard's tiles over and over, and a read for each
    tile takes twice the processor time of a read for all.
    """
    order = np.argsort(rows)
    ends = np.flatnonzero((np.diff(rows[order]) != 1) | (rows[order][1:] % BLOCK_ROWS == 0))
    return np.split(order, ends + 1)
