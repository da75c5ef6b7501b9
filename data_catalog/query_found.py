"""What queries found, as arrays with an element per tile; tables are made of them on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_catalog.grid import centres_of, corners_of
from data_catalog.query_places import GLOBE
from data_catalog.query_tables import CodeTables, plain_array, squares_of

if TYPE_CHECKING:
    import geopandas as gpd

Hits = tuple[NDArray[Any], NDArray[np.int64]]
"""Distances and rows that a query found."""


@dataclass(frozen=True)
class Tiles:
    """Tiles that have a code.

    Attributes:
        tile_ids: Their IDs.
        datetimes: Moments of their observations, UTC, datetime64[us] ``(n,)``.
        clear_fractions: Of their observations, float32 ``(n,)``.
        centres: Longitude and latitude, degrees, float64 ``(n, 2)``.
        corners: Longitude and latitude, degrees, float64 ``(n, 4, 2)``, counter-clockwise.
    """

    tile_ids: list[str]
    datetimes: NDArray[np.datetime64]
    clear_fractions: NDArray[np.float32]
    centres: NDArray[np.float64]
    corners: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tile_ids)

    def part(self, held: slice) -> Tiles:
        """Some of the tiles."""
        return Tiles(
            self.tile_ids[held],
            self.datetimes[held],
            self.clear_fractions[held],
            self.centres[held],
            self.corners[held],
        )

    def frame(self) -> gpd.GeoDataFrame:
        """A table of tile_id, datetime, clear_fraction, lon, lat and the footprint as geometry."""
        import geopandas as gpd
        import pandas as pd
        import shapely

        columns = {
            "tile_id": pd.Series(self.tile_ids, dtype=object),
            "datetime": pd.Series(self.datetimes).dt.tz_localize("UTC"),
            "clear_fraction": self.clear_fractions,
            "lon": self.centres[:, 0],
            "lat": self.centres[:, 1],
        }
        return gpd.GeoDataFrame(columns, geometry=shapely.polygons(self.corners), crs="OGC:CRS84")


@dataclass(frozen=True)
class Found:
    """What several queries found: the tiles of the first, nearest first, then of the next.

    Attributes:
        queries: What each query is called, ``(q,)``.
        counts: How many tiles each found, int64 ``(q,)``.
        tiles: The tiles, ``(n,)``.
        distances: Bits, or fractions of bits, ``(n,)``.
        away_km: On the ground from the tile asked for, float64 ``(n,)``; NaN where there is none.
    """

    queries: Sequence[Any]
    counts: NDArray[np.int64]
    tiles: Tiles
    distances: NDArray[Any]
    away_km: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of tiles over all queries."""
        return len(self.tiles)

    def slices(self) -> list[slice]:
        """Where the tiles of each query are."""
        ends = np.cumsum(self.counts)
        return [slice(*ends) for ends in zip(ends - self.counts, ends, strict=True)]

    def of_each(self) -> Iterator[Found]:
        """What each query found by itself."""
        for number, held in enumerate(self.slices()):
            yield Found(
                self.queries[number : number + 1],
                self.counts[number : number + 1],
                self.tiles.part(held),
                self.distances[held],
                self.away_km[held],
            )

    def frame(self) -> gpd.GeoDataFrame:
        """The table that ``PublishedCodes.similar_many`` returns."""
        queries = np.repeat(np.array(self.queries, object), self.counts)
        frame = self.tiles.frame().assign(
            query=queries, distance=self.distances, away_km=self.away_km
        )
        order = ["query", "tile_id", "distance", "lon", "lat", "away_km", "datetime"]
        return frame[[*order, "clear_fraction", "geometry"]]

    def frame_of_one(self) -> gpd.GeoDataFrame:
        """The table of a single query, which is ``attrs["query"]`` in place of a column."""
        [query] = self.queries
        frame = self.frame().drop(columns="query")
        frame.attrs["query"] = query
        return frame


def read_tiles(tables: CodeTables, rows: NDArray[np.int64]) -> Tiles:
    """Reads rows of code tables."""
    taken = tables.take(rows, ["tile_id", "datetime", "clear_fraction"])
    centres, corners = np.empty((len(rows), 2)), np.empty((len(rows), 4, 2))
    for squares in squares_of(taken["tile_id"]):
        where = squares.zone, squares.columns, squares.rows, squares.size
        centres[squares.places], corners[squares.places] = centres_of(*where), corners_of(*where)
    return Tiles(
        taken["tile_id"].to_pylist(),
        plain_array(taken["datetime"].cast(pa.int64())).view("datetime64[us]"),
        plain_array(taken["clear_fraction"]),
        centres,
        corners,
    )


def read_found(
    tables: CodeTables,
    hits: Sequence[Hits],
    queries: Sequence[Any],
    origins: NDArray[np.int64] | None = None,
) -> Found:
    """Reads the tiles that queries found.

    Args:
        tables: What was searched.
        hits: What each query found.
        queries: What each is called.
        origins: The row of the tile that each query measures distances on the ground from.
    """
    counts = np.array([len(rows) for _, rows in hits], np.int64)
    n = int(counts.sum())
    own = np.empty(0, np.int64) if origins is None else origins
    read = read_tiles(tables, np.concatenate([*(rows for _, rows in hits), own]))
    tiles, places = read.part(slice(n)), read.centres[n:]
    metres = np.full(n, np.nan)
    if origins is not None:
        metres[:] = GLOBE.inv(*np.repeat(places, counts, axis=0).T, *tiles.centres.T)[2]
    distances = np.concatenate([d for d, _ in hits] or [np.empty(0, np.int32)])
    return Found(queries, counts, tiles, distances, metres / 1000.0)
