"""Features of published observations, computed once per extractor and segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.observations import current_observations, read_tiles
from rshash.features import Extractor

BATCH_TILES = 256
SAVE_TILES = 4096
"""A run that is cut off loses the features of this many tiles at the most."""


def observation_features(
    catalogue: Catalogue,
    sensor: str,
    observations: gpd.GeoDataFrame,
    extractor: Extractor,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of observations, one row each, in their order.

    What was computed before is read from the catalogue's ``.cache`` folder, which may be deleted at
    any time: segments are immutable, so a cached row never goes stale.

    Args:
        catalogue: Holds the observations' segments.
        sensor: Sensor ID.
        observations: As ``current_observations`` returns them.
        extractor: Turns float32 reflectance ``(n, band, y, x)`` into features.
        advance: Called with the number of tiles done since the last call.

    Returns:
        float32, ``(len(observations), extractor.dimensions)``.
    """
    features = np.empty((len(observations), extractor.dimensions), np.float32)
    segments = observations["segment_id"].to_numpy()
    for segment_id in np.unique(segments):
        at = np.flatnonzero(segments == segment_id)
        rows = observations["row"].to_numpy()[at]
        cache = _SegmentFeatures(catalogue.root / ".cache" / "features", extractor, segment_id)
        missing = at[~cache.holds(rows)]
        if advance:
            advance(len(at) - len(missing))
        for start in range(0, len(missing), BATCH_TILES):
            batch = observations.iloc[missing[start : start + BATCH_TILES]]
            tiles = read_tiles(catalogue, sensor, batch, extractor.bands)
            cache.add(batch["row"].to_numpy(), extractor(tiles))
            if start % SAVE_TILES == 0 or start + BATCH_TILES >= len(missing):
                cache.save()
            if advance:
                advance(len(batch))
        features[at] = cache.take(rows)
    return features


def joined_features(
    catalogue: Catalogue, extractors: dict[str, Extractor], tile_size: int
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """Features of the same tiles from several sensors, joined on the tile ID.

    Args:
        catalogue: Holds the observations.
        extractors: By sensor ID; the first sensor is the primary one.
        tile_size: Metres on a side.

    Returns:
        IDs of the tiles that have complete features of the primary sensor, and by sensor ID
        float32 ``(tiles, dimensions)``, a row of NaN where a tile lacks it. Of the other sensors,
        those that saw none of the tiles are left out.
    """
    frames: list[pd.DataFrame] = []
    for sensor, extractor in extractors.items():
        observations = current_observations(catalogue, sensor, tile_size)
        features = observation_features(catalogue, sensor, observations, extractor)
        frames.append(pd.DataFrame(features, index=observations["tile_id"]))
    tile_ids = frames[0].dropna().index
    joined = [frame.reindex(tile_ids) for frame in frames]
    return list(tile_ids), {
        sensor: frame.to_numpy(np.float32)
        for sensor, frame in zip(extractors, joined, strict=True)
        if frame is joined[0] or frame.notna().all(axis=1).any()
    }


class _SegmentFeatures:
    def __init__(self, folder: Path, extractor: Extractor, segment_id: str) -> None:
        self._path = folder / extractor.id / f"{segment_id}.npz"
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)
        self._features = np.empty((0, extractor.dimensions), np.float32)
        try:
            with np.load(self._path, allow_pickle=False) as saved:
                self._rows, self._features = saved["rows"], saved["features"]
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            # None yet, or cut off by a crash: what is lost is computed again.
            pass

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(rows, self._rows)

    def add(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        self._rows = np.concatenate([self._rows, rows])
        self._features = np.concatenate([self._features, features])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        order = np.argsort(self._rows)
        return self._features[order[np.searchsorted(self._rows, rows, sorter=order)]]

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{uuid4().hex}.npz")
        np.savez(part, rows=self._rows, features=self._features)
        part.replace(self._path)
