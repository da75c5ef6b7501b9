"""Queries: which places look like this tile? Answered exactly, from published code tables alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_columns, collection_of
from data_catalog.errors import QueryError
from data_catalog.grid import Tile, parse_tile_id
from data_catalog.grid import tile_at as grid_tile_at
from data_catalog.query_filters import Filters
from data_catalog.query_frames import Hits, result_frame, tile_frame
from data_catalog.query_places import (
    allowed_rows,
    nearest_row,
    rows_in,
    rows_of_block,
    rows_within,
)
from data_catalog.query_tables import CodeTables
from rshash.codes import Words
from rshash.search import CodeIndex

NO_FILTERS = Filters()
CACHED_FILTERS = 8
FEW_EXCLUDED = 4096
"""So many more tiles are searched for and left out after; beyond that they are masked."""


class PublishedCodes:
    """The current codes of one model over all zones, ready to be searched by many threads.

    Attributes:
        model_id: The model.
        bits: Length of the codes.
        sensor: ID of the sensor that the codes were made from.
        tile_size: Metres that the tiles have on a side.
        version: Differs whenever other codes are published.
    """

    def __init__(
        self,
        model_id: str,
        bits: int,
        sensor: str,
        tile_size: int,
        version: str,
        tables: CodeTables,
    ):
        self.model_id = model_id
        self.bits = bits
        self.sensor = sensor
        self.tile_size = tile_size
        self.version = version
        self._tables = tables
        self._allowed = lru_cache(CACHED_FILTERS)(lambda filters: allowed_rows(tables, filters))

    def __len__(self) -> int:
        """Number of tiles that have a code."""
        return len(self._tables)

    def __contains__(self, tile_id: str) -> bool:
        """Whether a tile has a code."""
        return self._tables.row(tile_id) is not None

    @cached_property
    def tile_ids(self) -> pd.Index[str]:
        """Tile IDs, sorted; the order that ties break by."""
        return pd.Index(self._tables.column("tile_id").to_pandas())

    def similar(
        self,
        tile_id: str,
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> gpd.GeoDataFrame:
        """The tiles whose codes are nearest to a tile's, by Hamming distance, then by tile ID.

        Args:
            tile_id: A tile with a published code; it is not among its own results.
            k: How many tiles are wanted at most, at least 1.
            radius: Only tiles whose codes differ by no more bits than this.
            filters: What the tiles must fulfil.

        Returns:
            At most k rows: tile_id, distance (bits), lon and lat (of the centre, degrees), away_km,
            datetime and clear_fraction (of the observation) and the footprint as geometry;
            ``attrs["query"]`` is the tile ID asked for.

        Raises:
            GridError: The tile ID is malformed.
            QueryError: The tile has no published code, or k or the radius is out of range.
        """
        result = self.similar_many([tile_id], k, radius=radius, filters=filters)
        result = result.drop(columns="query")
        result.attrs["query"] = tile_id
        return result

    def similar_many(
        self,
        tile_ids: Sequence[str],
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> gpd.GeoDataFrame:
        """As :meth:`similar` for each of several tiles, with the tile asked for as ``query``."""
        _check_numbers(k, radius)
        tiles = [self._checked(tile_id) for tile_id in tile_ids]
        own = np.array([self._row(tile) for tile in tiles], np.int64)
        excluded = [
            self._excluded([tile], rows, filters)
            for tile, rows in zip(tiles, own[:, None], strict=True)
        ]
        hits = self._nearest(self._codes[own], k, radius, filters, excluded)
        return result_frame(self._tables, hits, tiles, list(tile_ids))

    def similar_to_codes(
        self,
        codes: Words,
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> gpd.GeoDataFrame:
        """The tiles whose codes are nearest to given codes of the same model.

        Args:
            codes: uint64 ``(queries, words)``, as ``rshash.codes`` packs them.
            k: How many tiles are wanted at most for each, at least 1.
            radius: Only tiles whose codes differ by no more bits than this.
            filters: What the tiles must fulfil.

        Returns:
            As :meth:`similar`, with the number of the code as first column ``query``; ``away_km``
            is NaN.

        Raises:
            QueryError: The codes have another length, a filter needs a tile to measure from, or k
                or the radius is out of range.
        """
        _check_numbers(k, radius)
        width = len(code_columns(self.bits))
        if codes.ndim != 2 or codes.shape[1] != width or codes.dtype != np.uint64:
            raise QueryError(
                f"Model {self.model_id} has codes of {self.bits} bits, uint64 of shape "
                f"(n, {width}), but found {codes.dtype} of shape {codes.shape}: only codes of one "
                "and the same model compare."
            )
        if filters.need_a_place:
            raise QueryError(
                "A minimum distance or other blocks need a tile to measure from, and a code has no "
                "place: leave them out."
            )
        none = [np.empty(0, np.int64)] * len(codes)
        hits = self._nearest(codes, k, radius, filters, none)
        return result_frame(self._tables, hits, [None] * len(codes), list(range(len(codes))))

    def similar_to_examples(
        self,
        like: Sequence[str],
        unlike: Sequence[str] = (),
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> gpd.GeoDataFrame:
        """More like these, less like those.

        A tile's distance is the mean Hamming distance to the tiles in `like` less half the mean
        Hamming distance to those in `unlike`. Half, so that bits in which both agree still count
        for what they share with `like`.

        Args:
            like: Tiles with a published code, at least one.
            unlike: Tiles with a published code.
            k: How many tiles are wanted at most, at least 1.
            radius: Only tiles whose distance is no greater than this.
            filters: What the tiles must fulfil; distance and block are those of any example.

        Returns:
            As :meth:`similar`, but ``distance`` is a fraction, ``away_km`` is measured from the
            first of `like`, and ``attrs["query"]`` is that tile ID.

        Raises:
            GridError: A tile ID is malformed.
            QueryError: `like` is empty, a tile has no published code, or k or the radius is out of
                range.
        """
        _check_numbers(k, radius)
        if not like:
            raise QueryError("More like what? Name at least one tile that results should be like.")
        tiles = [self._checked(tile_id) for tile_id in (*like, *unlike)]
        own = np.array([self._row(tile) for tile in tiles], np.int64)
        allowed = self._mask(filters, self._excluded(tiles, own, filters))
        distances, rows = self._index.nearest_to_examples(
            self._codes[own[: len(like)]], self._codes[own[len(like) :]], k, allowed
        )
        hits = [_cut(distances, rows, k, radius)]
        result = result_frame(self._tables, hits, tiles[:1], [like[0]]).drop(columns="query")
        result.attrs["query"] = like[0]
        return result

    def tile_at(self, lon: float, lat: float) -> str:
        """ID of the tile with a published code at a place.

        Raises:
            GridError: The place is outside the tile grid.
            QueryError: The tile there has no published code; the message names the nearest.
        """
        tile = grid_tile_at(lon, lat, self.tile_size)
        self._row(tile)
        return tile.id

    def tile(self, tile_id: str) -> dict[str, Any]:
        """What is published of one tile.

        Returns:
            tile_id, datetime, clear_fraction, code (hexadecimal, bit 0 first), code_source,
            source_scenes, lon, lat (of the centre, degrees) and geometry (the footprint).

        Raises:
            GridError: The tile ID is malformed.
            QueryError: The tile has no published code.
        """
        tile = self._checked(tile_id)
        words = code_columns(self.bits)
        columns = ["tile_id", "datetime", "clear_fraction", "code_source", "source_scenes", *words]
        row = np.array([self._row(tile)])
        [found] = self._tables.take(row, columns).to_pylist()
        code = "".join(f"{found.pop(name):016x}" for name in words)
        lon, lat = tile.centre
        place = {"lon": lon, "lat": lat, "geometry": tile.footprint}
        return {**found, "code": code[: self.bits // 4], **place}

    def within(self, box: tuple[float, float, float, float], limit: int = 1000) -> gpd.GeoDataFrame:
        """Tiles for a map.

        Args:
            box: West, south, east, north, degrees; west is greater than east over the antimeridian.
            limit: Where there are more tiles, so many of them are taken, evenly spread.

        Returns:
            tile_id, datetime, clear_fraction, lon, lat and the footprint as geometry, ordered by
            tile ID; ``attrs["total"]`` is the number of all tiles in the box.

        Raises:
            QueryError: The box has no extent or is outside the world, or the limit is below 1.
        """
        from data_catalog.areas import parse_area

        if limit < 1:
            raise QueryError(f"At least one tile must be wanted, but the limit is {limit}.")
        rows = rows_in(self._tables, parse_area(",".join(f"{v:.9f}" for v in box)))
        total = len(rows)
        if total > limit:
            rows = rows[np.arange(limit) * total // limit]
        result = tile_frame(self._tables, rows)
        result.attrs["total"] = total
        return result

    @cached_property
    def _codes(self) -> Words:
        return self._tables.codes(self.bits)

    @cached_property
    def _index(self) -> CodeIndex:
        return CodeIndex(self._codes, self.bits)

    def _checked(self, tile_id: str) -> Tile:
        tile = parse_tile_id(tile_id)
        if tile.size != self.tile_size:
            raise QueryError(
                f"Tile {tile_id} is {tile.size} m on a side, but the codes of {self.model_id} are "
                f"of tiles of {self.tile_size} m: `rshash tile LON LAT --size {self.tile_size}` "
                "tells such a tile's ID."
            )
        return tile

    def _row(self, tile: Tile) -> int:
        row = self._tables.row(tile.id)
        if row is not None:
            return row
        nearest, metres = nearest_row(self._tables, tile.centre)
        [tile_id] = self._tables.take(np.array([nearest]), ["tile_id"])["tile_id"].to_pylist()
        raise QueryError(
            f"Tile {tile.id} has no published code of {self.model_id}. The nearest tile that "
            f"has one is {tile_id}, {metres / 1000:.1f} km away; "
            "to add this one, ingest and rehash its area."
        )

    def _excluded(
        self, tiles: list[Tile], own: NDArray[np.int64], filters: Filters
    ) -> NDArray[np.int64]:
        excluded = [own]
        for tile in tiles:
            if filters.outside_block:
                excluded.append(rows_of_block(self._tables, tile))
            if filters.minimum_distance_m > 0.0:
                excluded.append(rows_within(self._tables, tile.centre, filters.minimum_distance_m))
        return np.unique(np.concatenate(excluded))

    def _mask(self, filters: Filters, excluded: NDArray[np.int64]) -> NDArray[np.bool_]:
        allowed = self._allowed(filters)
        mask = np.ones(len(self), bool) if allowed is None else allowed.copy()
        mask[excluded] = False
        return mask

    def _nearest(
        self,
        queries: Words,
        k: int,
        radius: int | None,
        filters: Filters,
        excluded: list[NDArray[np.int64]],
    ) -> list[Hits]:
        most = max(map(len, excluded), default=0)
        if most > FEW_EXCLUDED:
            hits = []
            for query, without in zip(queries[:, None], excluded, strict=True):
                found = self._index.nearest(query, k, self._mask(filters, without))
                hits.append(_cut(found[0][0], found[1][0], k, radius))
            return hits
        distances, rows = self._index.nearest(queries, k + most, self._allowed(filters))
        hits = []
        for own_distances, own_rows, without in zip(distances, rows, excluded, strict=True):
            keep = ~np.isin(own_rows, without)
            hits.append(_cut(own_distances[keep], own_rows[keep], k, radius))
        return hits


def open_codes(catalogue: Catalogue, model_id: str | None = None) -> PublishedCodes:
    """Opens the current codes of a model; without an ID, of the latest model that has any.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The model has no published codes, or a table of them cannot be read.
    """
    chosen = catalogue.model_id(model_id)
    if model_id is None:
        with_codes = [m for m in catalogue.model_ids() if catalogue.item_ids(collection_of(m))]
        chosen = with_codes[-1] if with_codes else chosen
    # Tile IDs begin with the grid's code, so tables in its order hold all tile IDs in theirs.
    items = sorted(
        catalogue.items(collection_of(chosen)), key=lambda item: str(item.properties["grid:code"])
    )
    if not items:
        raise QueryError(
            f"No codes of model {chosen} are published in {catalogue.store}: "
            "make them with `rshash rehash`."
        )
    properties = items[0].properties
    version = hashlib.sha256("\n".join(item.id for item in items).encode()).hexdigest()[:16]
    tables = CodeTables([catalogue.asset_path(item, "embeddings") for item in items])
    tile_size = int(properties["grid:code"].removeprefix("UTM").split("-")[0])
    return PublishedCodes(
        chosen,
        properties["rshash:bits"],
        properties["rshash:sensor"],
        tile_size,
        version,
        tables,
    )


def _check_numbers(k: int, radius: int | None) -> None:
    if k < 1:
        raise QueryError(f"A query wants k of at least 1, but found {k}.")
    if radius is not None and radius < 0:
        raise QueryError(f"A radius is a number of bits, at least 0, but found {radius}.")


def _cut(distances: NDArray[Any], rows: NDArray[np.int64], k: int, radius: int | None) -> Hits:
    distances, rows = distances[:k], rows[:k]
    if radius is not None:
        within = distances <= radius
        distances, rows = distances[within], rows[within]
    return distances, rows
