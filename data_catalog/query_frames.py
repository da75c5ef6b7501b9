"""What queries found, as tables with a row per tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
from geopandas.array import from_shapely
from numpy.typing import NDArray
from pyproj import CRS

from data_catalog.grid import Tile, footprints, parse_tile_id
from data_catalog.query_places import GLOBE
from data_catalog.query_tables import CodeTables

COLUMNS = ("tile_id", "datetime", "clear_fraction")
NOWHERE = (np.nan, np.nan)
_LON_LAT = CRS("OGC:CRS84")

Hits = tuple[NDArray[Any], NDArray[np.int64]]
"""Distances and rows that a query found."""


def tile_frame(tables: CodeTables, rows: NDArray[np.int64]) -> gpd.GeoDataFrame:
    """Rows of code tables: tile_id, datetime, clear_fraction, lon, lat (degrees), and geometry."""
    columns = _columns(tables, rows)
    order = ["tile_id", "datetime", "clear_fraction", "lon", "lat", "geometry"]
    return gpd.GeoDataFrame({name: columns[name] for name in order}, geometry="geometry")


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
    found = _columns(tables, np.concatenate([rows for _, rows in hits] or [np.empty(0, int)]))
    counts = [len(rows) for _, rows in hits]
    places = [NOWHERE if tile is None else tile.centre for tile in origins]
    own = np.repeat(np.array(places).reshape(-1, 2), counts, axis=0)
    metres = np.full(len(own), np.nan)
    known = np.isfinite(own[:, 0])
    lon, lat = own[known].T
    metres[known] = GLOBE.inv(lon, lat, found["lon"][known], found["lat"][known])[2]
    columns = {
        "query": np.repeat(np.array(queries, object), counts),
        "tile_id": found["tile_id"],
        "distance": np.concatenate([d for d, _ in hits] or [np.empty(0, np.int32)]),
        "lon": found["lon"],
        "lat": found["lat"],
        "away_km": metres / 1000.0,
        "datetime": found["datetime"],
        "clear_fraction": found["clear_fraction"],
        "geometry": found["geometry"],
    }
    return gpd.GeoDataFrame(columns, geometry="geometry")


def _columns(tables: CodeTables, rows: NDArray[np.int64]) -> dict[str, Any]:
    taken = tables.take(rows, COLUMNS)
    tiles = [parse_tile_id(tile_id) for tile_id in taken["tile_id"].to_pylist()]
    centres = np.array([tile.centre for tile in tiles]).reshape(-1, 2)
    return {
        **{name: taken[name].to_pandas() for name in COLUMNS},
        "lon": centres[:, 0],
        "lat": centres[:, 1],
        "geometry": from_shapely(np.array(footprints(tiles), object), crs=_LON_LAT),
    }
