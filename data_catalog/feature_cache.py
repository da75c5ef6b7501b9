"""Features of published observations, computed once per extractor and segment.

They lie in the catalogue's ``.cache`` folder, which may be deleted whenever nothing runs: segments
are immutable, so a cached row never goes stale. Of any number of tiles only a few thousand are in
memory at once. Several runs may share the folder: what one writes, no other changes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TypeVar
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.catalogue_address import CACHED_FEATURES
from data_catalog.observations import current_observations, read_tiles
from rshash.features import Extractor
from rshash.streaming import FeatureFile

BATCH_TILES = 32
"""Of larger batches the memory is mapped afresh for each, which takes longer than reading it."""

SAVE_TILES = 4096
"""A run that is cut off loses the features of this many tiles at the most."""

KEEP_JOINED_DAYS = 7
"""Joined features that nobody asked for this long are removed."""

KEPT_SEGMENTS = 8
"""Segments whose rows a process remembers: batches come segment by segment."""

_ROW = np.dtype([("row", np.int64), ("complete", np.bool_)])
_PLACE = np.dtype([*_ROW.descr, ("file", np.int64), ("at", np.int64)])

Job = TypeVar("Job")
Result = TypeVar("Result")


def compute_features(
    catalogue: Catalogue,
    sensor: str,
    observations: pd.DataFrame,
    extractor: Extractor,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Computes the features that are not cached yet, reading tiles behind the computing.

    Args:
        catalogue: Holds the observations' segments.
        sensor: Sensor ID.
        observations: As ``current_observations`` returns them.
        extractor: Turns float32 reflectance ``(n, band, y, x)`` into features.
        advance: Called with the number of tiles done since the last call.
    """
    _fill(_Cached(catalogue, observations, extractor), catalogue, sensor, advance)


def feature_batches(
    catalogue: Catalogue,
    sensor: str,
    observations: pd.DataFrame,
    extractor: Extractor,
    advance: Callable[[int], None] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Features of observations in their order, batch by batch; arguments as ``compute_features``.

    Yields:
        Which observations, and their features, float32 ``(n, extractor.dimensions)``.
    """
    cached = _Cached(catalogue, observations, extractor)
    _fill(cached, catalogue, sensor, advance)
    for start in range(0, len(observations), SAVE_TILES):
        batch = slice(start, min(start + SAVE_TILES, len(observations)))
        yield batch, cached.take(np.arange(batch.start, batch.stop))


def observation_features(
    catalogue: Catalogue,
    sensor: str,
    observations: pd.DataFrame,
    extractor: Extractor,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Features of observations that fit in memory; arguments as ``compute_features``.

    Returns:
        float32, ``(len(observations), extractor.dimensions)``, in the observations' order.
    """
    features = np.empty((len(observations), extractor.dimensions), np.float32)
    for at, found in feature_batches(catalogue, sensor, observations, extractor, advance):
        features[at] = found
    return features


def joined_features(
    catalogue: Catalogue,
    extractors: dict[str, Extractor],
    tile_size: int,
    tile_ids: Collection[str] | None = None,
) -> tuple[list[str], dict[str, FeatureFile], dict[str, list[str]]]:
    """Features of the same tiles from several sensors, joined on the tile ID, on disk.

    Args:
        catalogue: Holds the observations.
        extractors: By sensor ID; the first sensor is the primary one.
        tile_size: Metres on a side.
        tile_ids: Only these tiles; None for all.

    Returns:
        IDs of the tiles that have complete features of the primary sensor, sorted, and by sensor ID
        float32 ``(tiles, dimensions)``, a row of NaN where a tile lacks it. Of the other sensors,
        those that saw none of the tiles are left out. The files stay for a week after they were
        last asked for. Last, IDs of the segments that hold these observations, by sensor ID.
    """
    found: list[tuple[str, _Cached]] = []
    for sensor, extractor in extractors.items():
        observations = current_observations(catalogue, sensor, tile_size, extractor.bands)
        compute_features(catalogue, sensor, observations, extractor)
        found.append((sensor, _Cached(catalogue, observations, extractor)))
    primary = found[0][1]
    wanted = primary.complete()
    if tile_ids is not None:
        wanted &= primary.tile_ids.isin(list(tile_ids))
    found_ids = primary.tile_ids[wanted]
    folder = catalogue.root / ".cache" / "joined"
    joined, segments = {}, {}
    for sensor, cached in found:
        at = cached.tile_ids.get_indexer(found_ids)
        seen = at[at >= 0]
        if cached is primary or cached.complete()[seen].any():
            joined[sensor] = _join(folder, cached, at)
            segments[sensor] = cached.observations["segment_id"].iloc[seen].unique().tolist()
    stac.remove_unused(folder, KEEP_JOINED_DAYS)
    return list(found_ids), joined, segments


def _cache_name(extractor: Extractor) -> str:
    """What features go by: those of a GPU in half precision are not those of a CPU."""
    return extractor.id if extractor.precision == "float32" else f"{extractor.id}-bf16"


def _fill(
    cached: _Cached, catalogue: Catalogue, sensor: str, advance: Callable[[int], None] | None
) -> None:
    def read(
        job: tuple[_Segment, NDArray[np.intp]],
    ) -> tuple[_Segment, NDArray[np.intp], NDArray[np.float32]]:
        batch = cached.observations.iloc[job[1]]
        return *job, read_tiles(catalogue, sensor, batch, cached.extractor.bands)

    jobs = list(cached.missing())
    if advance:
        advance(len(cached.observations) - sum(len(at) for _, at in jobs))
    for segment, batches in groupby(_read_ahead(read, jobs), lambda read: read[0]):
        unsaved = _Unsaved(segment)
        try:
            for _, at, tiles in batches:
                unsaved.add(cached.rows[at], cached.extractor(tiles))
                if advance:
                    advance(len(at))
        finally:
            unsaved.save()


def _read_ahead(read: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
    """What was read, in order, the next being read while this one is used."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for job in jobs:
            pending.append(reader.submit(read, job))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _join(folder: Path, cached: _Cached, at: NDArray[np.intp]) -> FeatureFile:
    """The features of observations as a file, with rows of NaN for position -1."""
    path = folder / f"{_cache_name(cached.extractor)}-{cached.fingerprint(at)}.npy"
    try:
        os.utime(path)
        return FeatureFile.open(path)
    except OSError:
        folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{uuid4().hex}.npy"
    with FeatureFile.create(part, (len(at), cached.extractor.dimensions), np.float32) as file:
        for start in range(0, len(at), SAVE_TILES):
            batch = at[start : start + SAVE_TILES]
            rows = np.full((len(batch), cached.extractor.dimensions), np.nan, np.float32)
            rows[batch >= 0] = cached.take(batch[batch >= 0])
            file.append(rows)
    part.replace(path)
    return FeatureFile.open(path)


class _Cached:
    """What the cache holds of some observations' features."""

    def __init__(
        self, catalogue: Catalogue, observations: pd.DataFrame, extractor: Extractor
    ) -> None:
        self.observations = pd.DataFrame(observations[["tile_id", "segment_id", "row"]])
        self.extractor = extractor
        self.rows = observations["row"].to_numpy(np.int64)
        self.tile_ids = pd.Index(observations["tile_id"])
        folder = catalogue.root / CACHED_FEATURES / _cache_name(extractor)
        self._numbers, names = pd.factorize(observations["segment_id"], sort=True)
        self._segments = [_segment(folder / str(name), extractor.dimensions) for name in names]
        for segment in self._segments:
            segment.refresh()

    def missing(self) -> Iterator[tuple[_Segment, NDArray[np.intp]]]:
        """Batches of observations to compute, each of one segment, in the order of its rows."""
        for segment, at in self._by_segment(np.arange(len(self.rows))):
            at = at[~segment.holds(self.rows[at])]
            at = at[np.argsort(self.rows[at])]
            size = max(BATCH_TILES, self.extractor.tiles_at_once)
            for start in range(0, len(at), size):
                yield segment, at[start : start + size]

    def complete(self) -> NDArray[np.bool_]:
        """Which observations have features without NaN."""
        found = np.zeros(len(self.rows), np.bool_)
        for segment, at in self._by_segment(np.arange(len(self.rows))):
            found[at] = segment.complete(self.rows[at])
        return found

    def take(self, at: NDArray[np.intp]) -> NDArray[np.float32]:
        """Features of observations by their positions, all of which are cached."""
        features = np.empty((len(at), self.extractor.dimensions), np.float32)
        for segment, places in self._by_segment(at):
            features[places] = segment.take(self.rows[at[places]])
        return features

    def fingerprint(self, at: NDArray[np.intp]) -> str:
        """A hash of which observations lie at some positions; -1 is none."""
        columns = self.observations[["segment_id", "row"]]
        hashes = pd.util.hash_pandas_object(columns, index=False).to_numpy()
        chosen = np.append(hashes, np.uint64(0))[at]
        return hashlib.sha256(chosen.tobytes()).hexdigest()[:20]

    def _by_segment(self, at: NDArray[np.intp]) -> Iterator[tuple[_Segment, NDArray[np.intp]]]:
        """For each segment of the observations at some positions the places among these."""
        numbers = self._numbers[at]
        for number in np.unique(numbers):
            yield self._segments[number], np.flatnonzero(numbers == number)


class _Segment:
    """Features of a segment's rows, in files of up to SAVE_TILES rows that never change.

    Threads share it, and other processes write to its folder.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self._folder = folder
        self._dimensions = dimensions
        self._lock = Lock()
        self._read: set[str] = set()
        self._features: list[Path] = []
        self._index = np.empty(0, _PLACE)

    def refresh(self) -> None:
        """Reads which rows were written since the last time, by whatever process."""
        with self._lock:
            listed = {path.name for path in self._folder.glob("*.rows.npy")}
            if not self._read <= listed:  # The cache was deleted.
                self._read, self._index = set(), np.empty(0, _PLACE)
            new = sorted(listed - self._read)
            self._read = listed
            if new:
                index = np.concatenate([self._index, *map(self._places, new)])
                # Two runs may have computed the same rows.
                self._index = index[np.unique(index["row"], return_index=True)[1]]

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        index = self._index["row"]
        at = np.searchsorted(index, rows)
        held = at < len(index)
        held[held] = index[at[held]] == rows[held]
        return held

    def complete(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._find(rows)["complete"]

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = self._find(rows)
        features = np.empty((len(rows), self._dimensions), np.float32)
        for number in np.unique(found["file"]):
            places = np.flatnonzero(found["file"] == number)
            file = np.load(self._features[number], mmap_mode="r")
            features[places] = file[found["at"][places]]
        return features

    def write(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        """Writes a file: first the features, last the rows that say they are there."""
        name = uuid4().hex
        index = np.empty(len(rows), _ROW)
        index["row"], index["complete"] = rows, ~np.isnan(features).any(axis=1)
        part = self._folder / f"{name}.part"
        path = self._folder / f"{name}.features.npy"
        with stac.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with FeatureFile.create(path, features.shape, np.float32) as file:
                file.append(features)
            with part.open("wb") as output:
                np.save(output, index)
            stac.sync(part)
            part.replace(self._folder / f"{name}.rows.npy")
        self.refresh()

    def _places(self, name: str) -> NDArray[np.void]:
        """Where a file has features of which rows: of none, if it was cut off by a crash."""
        features = self._folder / name.replace(".rows.npy", ".features.npy")
        try:
            rows = np.load(self._folder / name)
            shape = np.load(features, mmap_mode="r").shape
        except (OSError, EOFError, ValueError):
            return np.empty(0, _PLACE)
        if rows.dtype != _ROW or shape != (len(rows), self._dimensions):
            return np.empty(0, _PLACE)
        places = np.empty(len(rows), _PLACE)
        places["row"], places["complete"] = rows["row"], rows["complete"]
        places["file"], places["at"] = len(self._features), np.arange(len(rows))
        self._features.append(features)
        return places

    def _find(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        index = self._index
        return index[np.searchsorted(index["row"], rows)]


# Else every batch of a segment would read the rows of all batches before it.
_segment = lru_cache(maxsize=KEPT_SEGMENTS)(_Segment)


class _Unsaved:
    """Features that a run has computed, on their way into a segment's files."""

    def __init__(self, segment: _Segment) -> None:
        self._segment = segment
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def add(self, rows: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        self._parts.append((rows, features))
        if sum(len(rows) for rows, _ in self._parts) >= SAVE_TILES:
            self.save()

    def save(self) -> None:
        if self._parts:
            rows, features = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            self._parts.clear()
            self._segment.write(rows, features)
