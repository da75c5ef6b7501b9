"""Queries: which places look like this tile? Answered exactly, from published code tables alone."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyproj import Geod

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_columns, collection_of
from data_catalog.errors import QueryError
from data_catalog.grid import FALSE_NORTHING_SOUTH, Tile, footprints, parse_tile_id
from rshash.codes import Words
from rshash.search import CodeIndex

_GLOBE = Geod(ellps="WGS84")


class PublishedCodes:
    """The current codes of one model over all zones, ready to be searched.

    Attributes:
        model_id: The model.
        bits: Length of the codes.
        sensor: ID of the sensor that the codes were made from.
        tile_ids: Tile IDs, sorted; the order that ties break by.
    """

    def __init__(self, model_id: str, bits: int, sensor: str, table: pa.Table):
        self.model_id = model_id
        self.bits = bits
        self.sensor = sensor
        self.tile_ids = pd.Index(table["tile_id"].to_pandas())
        self._datetimes = table["datetime"].to_pandas()
        words = [table[name].to_numpy() for name in code_columns(bits)]
        self._codes: Words = np.stack(words, axis=1)

    def __len__(self) -> int:
        """Number of tiles that have a code."""
        return len(self.tile_ids)

    def similar(
        self, tile_id: str, k: int = 10, minimum_distance_m: float = 0.0
    ) -> gpd.GeoDataFrame:
        """The tiles whose codes are nearest to a tile's, by Hamming distance, then by tile ID.

        Args:
            tile_id: A tile with a published code; it is not among its own results.
            k: How many tiles are wanted, at least 1.
            minimum_distance_m: Tiles whose centres are closer than this, in metres, are left out:
                a tile's neighbours look like it and are no discovery.

        Returns:
            At most k rows: tile_id, distance (bits), lon and lat (of the centre, degrees), away_km,
            datetime (of the observation) and the footprint as geometry; ``attrs["query"]`` is the
            tile ID asked for.

        Raises:
            GridError: The tile ID is malformed.
            QueryError: The tile has no published code, or k or the distance is out of range.
        """
        if k < 1 or not minimum_distance_m >= 0.0:
            raise QueryError(
                f"A query wants k of at least 1 and a minimum distance of at least 0 m, "
                f"but found {k} and {minimum_distance_m:g} m."
            )
        tile = parse_tile_id(tile_id)
        row = self._row(tile)
        allowed = np.ones(len(self), bool)
        if minimum_distance_m > 0.0:
            allowed = self._metres_from(tile) >= minimum_distance_m
        allowed[row] = False
        distances, rows = self._index.nearest(self._codes[row : row + 1], k, allowed)
        result = self._result(tile, rows[0], distances[0])
        result.attrs["query"] = tile_id
        return result

    @cached_property
    def _index(self) -> CodeIndex:
        return CodeIndex(self._codes, self.bits)

    @cached_property
    def _centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        parts = self.tile_ids.to_series().str.rsplit("_", n=2, expand=True).to_numpy()
        lon, lat = np.empty(len(self)), np.empty(len(self))
        for grid in np.unique(parts[:, 0]):
            at = np.flatnonzero(parts[:, 0] == grid)
            example = parse_tile_id(self.tile_ids[at[0]])
            column, row = parts[at, 1].astype(float), parts[at, 2].astype(float)
            north = (row + 0.5) * example.size
            if example.zone.hemisphere == "S":
                north = FALSE_NORTHING_SOUTH - north
            lon[at], lat[at] = example.zone.unproject((column + 0.5) * example.size, north)
        return lon, lat

    def _metres_from(self, tile: Tile) -> NDArray[np.float64]:
        lon, lat = self._centres
        own_lon, own_lat = tile.centre
        _, _, metres = _GLOBE.inv(
            np.full(len(self), own_lon), np.full(len(self), own_lat), lon, lat
        )
        return np.asarray(metres)

    def _row(self, tile: Tile) -> int:
        row = int(self.tile_ids.get_indexer(pd.Index([tile.id]))[0])
        if row >= 0:
            return row
        metres = self._metres_from(tile)
        nearest = int(metres.argmin())
        raise QueryError(
            f"Tile {tile.id} has no published code of {self.model_id}. The nearest tile that "
            f"has one is {self.tile_ids[nearest]}, {metres[nearest] / 1000:.1f} km away; "
            "to add this one, ingest and rehash its area."
        )

    def _result(
        self, tile: Tile, rows: NDArray[np.int64], distances: NDArray[np.int32]
    ) -> gpd.GeoDataFrame:
        tiles = [parse_tile_id(tile_id) for tile_id in self.tile_ids[rows]]
        centres = np.array([found.centre for found in tiles]).reshape(-1, 2)
        own = np.broadcast_to(tile.centre, centres.shape)
        metres = _GLOBE.inv(own[:, 0], own[:, 1], centres[:, 0], centres[:, 1])[2]
        return gpd.GeoDataFrame(
            {
                "tile_id": self.tile_ids[rows],
                "distance": distances,
                "lon": centres[:, 0],
                "lat": centres[:, 1],
                "away_km": np.asarray(metres) / 1000.0,
                "datetime": self._datetimes.iloc[rows].to_numpy(),
            },
            geometry=footprints(tiles),
            crs="OGC:CRS84",
        )


def open_codes(catalogue: Catalogue, model_id: str | None = None) -> PublishedCodes:
    """Opens the current codes of a model; without an ID, of the latest model that has any.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The model has no published codes.
    """
    chosen = catalogue.model_id(model_id)
    if model_id is None:
        with_codes = [m for m in catalogue.model_ids() if catalogue.item_ids(collection_of(m))]
        chosen = with_codes[-1] if with_codes else chosen
    items = catalogue.items(collection_of(chosen))
    if not items:
        raise QueryError(
            f"No codes of model {chosen} are published in {catalogue.root}: "
            "make them with `rshash rehash`."
        )
    properties = items[0].properties
    bits: int = properties["rshash:bits"]
    columns = ["tile_id", "datetime", *code_columns(bits)]
    paths = [Path(str(item.assets["embeddings"].get_absolute_href())) for item in items]
    table = pa.concat_tables(_read(path, columns) for path in paths).sort_by("tile_id")
    return PublishedCodes(chosen, bits, properties["rshash:sensor"], table)


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns).replace_schema_metadata(None)
    except (OSError, pa.ArrowInvalid) as error:
        raise QueryError(
            f"The code table {path} cannot be read ({error}): run `rshash rehash` again."
        ) from error
