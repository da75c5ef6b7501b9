"""Searches of published codes: arguments checked, filters applied, what is found as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_catalog.code_schema import code_columns
from data_catalog.errors import QueryError
from data_catalog.grid import Tile, parse_tile_id
from data_catalog.query_filters import Filters
from data_catalog.query_found import Found, Hits, read_found
from data_catalog.query_places import allowed_rows, nearest_row, rows_of_block, rows_within
from data_catalog.query_tables import CodeTables
from rshash.codes import Words
from rshash.search import CodeIndex

NO_FILTERS = Filters()
CACHED_FILTERS = 8
FEW_EXCLUDED = 4096
"""So many more tiles are searched for and left out after; beyond that they are masked."""


class CodeSearch:
    """Searches the codes of one model; many threads may share it.

    Its searches are those of ``PublishedCodes``, with what they find as arrays.

    Attributes:
        model_id: The model.
        bits: Length of the codes.
        tile_size: Metres that the tiles have on a side.
    """

    def __init__(self, tables: CodeTables, model_id: str, bits: int, tile_size: int):
        self.model_id = model_id
        self.bits = bits
        self.tile_size = tile_size
        self._tables = tables
        self._allowed = lru_cache(CACHED_FILTERS)(lambda filters: allowed_rows(tables, filters))

    def check_numbers(self, k: int, radius: int | None) -> None:
        """Checks how many tiles are wanted, and within how many bits.

        Raises:
            QueryError: One of them is out of range.
        """
        if k < 1:
            raise QueryError(f"A query wants k of at least 1, but found {k}.")
        if radius is not None and not 0 <= radius <= self.bits:
            raise QueryError(
                f"A radius is a number of bits, 0 to {self.bits} for codes of {self.model_id}, but "
                f"found {radius}."
            )

    def like_tiles(
        self,
        tile_ids: Sequence[str],
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> Found:
        """As ``PublishedCodes.similar_many``."""
        self.check_numbers(k, radius)
        tiles = [self.tile(tile_id) for tile_id in tile_ids]
        own = np.array([self.row(tile) for tile in tiles], np.int64)
        excluded = [
            self._excluded([tile], rows, filters)
            for tile, rows in zip(tiles, own[:, None], strict=True)
        ]
        hits = self._nearest(self._codes[own], k, radius, filters, excluded)
        return read_found(self._tables, hits, list(tile_ids), own)

    def like_codes(
        self,
        codes: Words,
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> Found:
        """As ``PublishedCodes.similar_to_codes``."""
        self.check_numbers(k, radius)
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
        return read_found(self._tables, hits, range(len(codes)))

    def like_examples(
        self,
        like: Sequence[str],
        unlike: Sequence[str] = (),
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> Found:
        """As ``PublishedCodes.similar_to_examples``."""
        self.check_numbers(k, radius)
        if not like:
            raise QueryError("More like what? Name at least one tile that results should be like.")
        tiles = [self.tile(tile_id) for tile_id in (*like, *unlike)]
        own = np.array([self.row(tile) for tile in tiles], np.int64)
        allowed = self._mask(filters, self._excluded(tiles, own, filters))
        distances, rows = self._index.nearest_to_examples(
            self._codes[own[: len(like)]], self._codes[own[len(like) :]], k, allowed
        )
        hits = [_cut(distances, rows, k, radius)]
        return read_found(self._tables, hits, [like[0]], own[:1])

    def tile(self, tile_id: str) -> Tile:
        """The tile of an ID.

        Raises:
            GridError: The ID is malformed.
            QueryError: The tile is of another size than those that have codes.
        """
        tile = parse_tile_id(tile_id)
        if tile.size != self.tile_size:
            raise QueryError(
                f"Tile {tile_id} is {tile.size} m on a side, but the codes of {self.model_id} are "
                f"of tiles of {self.tile_size} m: `rshash tile LON LAT --size {self.tile_size}` "
                "tells such a tile's ID."
            )
        return tile

    def row(self, tile: Tile) -> int:
        """The row of a tile's code.

        Raises:
            QueryError: It has none; the message names the nearest tile that has one.
        """
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

    @cached_property
    def _codes(self) -> Words:
        return self._tables.codes(self.bits)

    @cached_property
    def _index(self) -> CodeIndex:
        return CodeIndex(self._codes, self.bits)

    def _excluded(
        self, tiles: list[Tile], own: NDArray[np.int64], filters: Filters
    ) -> NDArray[np.int64]:
        if not filters.need_a_place:
            return own
        excluded = [own]
        for tile in tiles:
            if filters.outside_block:
                excluded.append(rows_of_block(self._tables, tile))
            if filters.minimum_distance_m > 0.0:
                excluded.append(rows_within(self._tables, tile.centre, filters.minimum_distance_m))
        return np.unique(np.concatenate(excluded))

    def _mask(self, filters: Filters, excluded: NDArray[np.int64]) -> NDArray[np.bool_]:
        allowed = self._allowed(filters)
        mask = np.ones(len(self._tables), bool) if allowed is None else allowed.copy()
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
            keep = own_rows != without if most == 1 else ~np.isin(own_rows, without)
            hits.append(_cut(own_distances[keep], own_rows[keep], k, radius))
        return hits


def _cut(distances: NDArray[Any], rows: NDArray[np.int64], k: int, radius: int | None) -> Hits:
    distances, rows = distances[:k], rows[:k]
    if radius is not None:
        within = distances <= radius
        distances, rows = distances[within], rows[within]
    return distances, rows
