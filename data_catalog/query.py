"""Queries: which places look like this tile? Answered exactly, from published code tables alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_columns, collection_of
from data_catalog.errors import QueryError
from data_catalog.grid import tile_at as grid_tile_at
from data_catalog.query_filters import Filters
from data_catalog.query_found import Tiles, read_tiles
from data_catalog.query_places import rows_in
from data_catalog.query_search import NO_FILTERS, CodeSearch
from data_catalog.query_tables import CodeTables
from rshash.codes import Words

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd


class PublishedCodes:
    """The current codes of one model over all zones, ready to be searched by many threads.

    Attributes:
        model_id: The model.
        bits: Length of the codes.
        sensor: ID of the sensor that the codes were made from.
        tile_size: Metres that the tiles have on a side.
        version: Differs whenever other codes are published.
        search: The same searches, with what they find as arrays.
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
        self.search = CodeSearch(tables, model_id, bits, tile_size)
        self._tables = tables

    def __len__(self) -> int:
        """Number of tiles that have a code."""
        return len(self._tables)

    def __contains__(self, tile_id: str) -> bool:
        """Whether a tile has a code."""
        return self._tables.row(tile_id) is not None

    @cached_property
    def tile_ids(self) -> pd.Index[str]:
        """Tile IDs, sorted; the order that ties break by."""
        import pandas as pd

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
        found = self.search.like_tiles([tile_id], k, radius=radius, filters=filters)
        return found.frame_of_one()

    def similar_many(
        self,
        tile_ids: Sequence[str],
        k: int = 10,
        *,
        radius: int | None = None,
        filters: Filters = NO_FILTERS,
    ) -> gpd.GeoDataFrame:
        """As :meth:`similar` for each of several tiles, with the tile asked for as ``query``."""
        return self.search.like_tiles(tile_ids, k, radius=radius, filters=filters).frame()

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
        return self.search.like_codes(codes, k, radius=radius, filters=filters).frame()

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
        found = self.search.like_examples(like, unlike, k, radius=radius, filters=filters)
        return found.frame_of_one()

    def tile_at(self, lon: float, lat: float) -> str:
        """ID of the tile with a published code at a place.

        Raises:
            GridError: The place is outside the tile grid.
            QueryError: The tile there has no published code; the message names the nearest.
        """
        tile = grid_tile_at(lon, lat, self.tile_size)
        self.search.row(tile)
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
        tile = self.search.tile(tile_id)
        words = code_columns(self.bits)
        columns = ["tile_id", "datetime", "clear_fraction", "code_source", "source_scenes", *words]
        row = np.array([self.search.row(tile)])
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
        tiles, total = self.tiles_within(box, limit)
        result = tiles.frame()
        result.attrs["total"] = total
        return result

    def tiles_within(
        self, box: tuple[float, float, float, float], limit: int = 1000
    ) -> tuple[Tiles, int]:
        """As :meth:`within`, as arrays, and the number of all tiles in the box."""
        from data_catalog.areas import parse_area

        if limit < 1:
            raise QueryError(f"At least one tile must be wanted, but the limit is {limit}.")
        rows = rows_in(self._tables, parse_area(",".join(f"{v:.9f}" for v in box)))
        total = len(rows)
        if total > limit:
            rows = rows[np.arange(limit) * total // limit]
        return read_tiles(self._tables, rows), total


def open_codes(catalogue: Catalogue, model_id: str | None = None) -> PublishedCodes:
    """Opens the current codes of a model; without an ID, of the model in use.

    Raises:
        CatalogueError: No such model is published, or a table of its codes cannot be read.
        QueryError: The model has no published codes, or codes of another model are among them.
    """
    chosen = catalogue.model_id(model_id)
    # Tile IDs begin with the grid's code, so tables in its order hold all tile IDs in theirs.
    items = sorted(
        catalogue.items(collection_of(chosen)), key=lambda item: str(item.properties["grid:code"])
    )
    if not items:
        raise QueryError(
            f"No codes of model {chosen} are published in {catalogue.store}: "
            "make them with `rshash rehash`."
        )
    for item in items:
        if item.properties["rshash:model"] != chosen:
            raise QueryError(
                f"Codes of two models cannot be compared: {item.id} holds codes of "
                f"{item.properties['rshash:model']}, but lies among those of {chosen}. "
                "See `rshash catalog verify`."
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
