"""What queries found, as tables with a row per tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.grid import Tile, footprints, parse_tile_id
from data_catalog.query_places import GLOBE
from data_catalog.query_tables import CodeTables

COLUMNS = ("tile_id", "datetime", "clear_fraction")
NOWHERE = (np.nan, np.nan)

Hits = tuple[NDArray[Any], NDArray[np.int64]]
"""Distances and rows that a query found."""


def tile_frame(tables: CodeTables, rows: NDArray[np.int64]) -> gpd.GeoDataFrame:
    """Rows of code tables: tile_id, datetime, clear_fraction, lon, lat (degrees), and geometry."""
    frame: pd.DataFrame = tables.take(rows, COLUMNS).to_pandas()
    tiles = [parse_tile_id(tile_id) for tile_id in frame["tile_id"]]
    centres = np.array([tile.centre for tile in tiles]).reshape(-1, 2)
    frame = frame.assign(lon=centres[:, 0], lat=centres[:, 1])
    return gpd.GeoDataFrame(frame, geometry=footprints(tiles), crs="OGC:CRS84")


def result_frame(
    tables: CodeTables, hits: Sequence[Hits], origins: Sequence[Tile | None], queries: Sequence[Any]
) -> gpd.GeoDataFrame:
    """Results of queries, one after the other.

    Args:
        tables: What was searched.
        hits: What each query found.
        origins: The tile that distances on the ground are measured from; None where there is none.
        queries: What is told as ``query``.

    Returns:
        query, tile_id, distance, lon, lat, away_km, datetime, clear_fraction and geometry.
    """
    frame = tile_frame(tables, np.concatenate([rows for _, rows in hits] or [np.empty(0, int)]))
    counts = [len(rows) for _, rows in hits]
    places = [NOWHERE if tile is None else tile.centre for tile in origins]
    own = np.repeat(np.array(places).reshape(-1, 2), counts, axis=0)
    metres = np.full(len(frame), np.nan)
    known = np.isfinite(own[:, 0])
    here, there = own[known], frame.loc[known, ["lon", "lat"]].to_numpy()
    metres[known] = GLOBE.inv(here[:, 0], here[:, 1], there[:, 0], there[:, 1])[2]
    columns = {
        "query": np.repeat(np.array(queries, object), counts),
        "tile_id": frame["tile_id"],
        "distance": np.concatenate([d for d, _ in hits] or [np.empty(0, np.int32)]),
        "lon": frame["lon"],
        "lat": frame["lat"],
        "away_km": metres / 1000.0,
        "datetime": frame["datetime"],
        "clear_fraction": frame["clear_fraction"],
    }
    return gpd.GeoDataFrame(columns, geometry=frame.geometry, crs="OGC:CRS84")
