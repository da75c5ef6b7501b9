"""Land cover of tiles: the share of every class of a map, counted on each tile's own 10 m grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
from numpy.typing import NDArray

from data_catalog.assets import AssetWindow, read_assets, union_of, window_of
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError, ReadError, SourceError
from data_catalog.geometry import outline
from data_catalog.geoparquet import read_geoparquet, write_geoparquet
from data_catalog.grid import BLOCK_TILES, Block, Tile, blocks_of, footprints, parse_tile_id
from data_catalog.legends import Legend, legend_of
from data_catalog.licences import collection_credit
from data_catalog.redaction import redacted
from data_catalog.scenes import scene_datetime, scenes_over
from data_catalog.sensors import SceneBand
from data_catalog.source_catalogue import SourceCatalogue, open_source
from data_catalog.stac_items import land_cover_item

RESOLUTION = 10
"""Metres per pixel that classes are counted on."""

READ_THREADS = 8
"""Blocks that are read at once."""

BATCH_BLOCKS = 128
"""Blocks to a published table: what a run that is cut off loses at the most."""

ALWAYS = "../.."


@dataclass
class LandCoverReport:
    """What became of the tiles whose land cover was asked for.

    Attributes:
        items: IDs of the items that were published.
        known: Number of tiles whose land cover was published before.
        mapped: Number of tiles that got theirs now.
        unmapped: Number of tiles that no map shows; they are published as such.
        failures: Cause by ID of every map that could not be read: the next run tries its tiles
            again.
    """

    items: list[str] = field(default_factory=list)
    known: int = 0
    mapped: int = 0
    unmapped: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def land_cover_collection(collection: str) -> str:
    """ID of the collection that holds the land cover from a source's collection."""
    return f"land-cover-{collection}"


def published_land_cover(catalogue: Catalogue, collection_id: str) -> pd.DataFrame:
    """All published land cover of a collection, a row per tile.

    Args:
        catalogue: Holds it.
        collection_id: As :func:`land_cover_collection` returns it.

    Returns:
        ``tile_id``, a column per class with its share of the mapped pixels (NaN where nothing was
        mapped), ``mapped_fraction`` and ``source_maps``.
    """
    items = catalogue.items(collection_id)
    if not items:
        return pd.DataFrame({"tile_id": pd.Series(dtype=str)})
    files = [catalogue.asset_path(item, "labels") for item in items]
    tables = [pq.read_table(file).drop_columns(["geometry", "bbox"]) for file in files]
    frame = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
    return frame.drop_duplicates("tile_id", keep="last").sort_values("tile_id", ignore_index=True)


def publish_land_cover(
    catalogue: Catalogue,
    source: str,
    collection: str,
    tile_ids: Iterable[str],
    advance: Callable[[int], None] | None = None,
) -> LandCoverReport:
    """Publishes the land cover of tiles, from the newest of a source's maps of each place.

    Tiles whose land cover is published already are not read again. A map that cannot be read after
    all retries is named in the report, and its tiles are left for the next run.

    Args:
        catalogue: Where it is published.
        source: As :func:`~data_catalog.source_catalogue.open_source` takes it.
        collection: ID of the maps' collection, such as ``esa-worldcover``.
        tile_ids: The tiles.
        advance: Called with the number of tiles done since the last call.

    Raises:
        GridError: A tile ID is malformed.
        SourceError: The source cannot be searched, lacks the collection, does not tell what its
            classes are, or has no map of any of the tiles.
    """
    wanted = {parse_tile_id(tile_id) for tile_id in tile_ids}
    known = set(published_land_cover(catalogue, land_cover_collection(collection))["tile_id"])
    tiles = sorted(tile for tile in wanted if tile.id not in known)
    report = LandCoverReport(known=len(wanted) - len(tiles))
    if advance:
        advance(report.known)
    if not tiles:
        return report
    maps = _find_maps(open_source(source), collection, tiles)
    if not maps.of_tile:
        if not known:
            raise SourceError(
                f"Collection {collection!r} of {redacted(source)} has no map of any of the "
                f"{len(tiles)} tiles, the first of which is {tiles[0].id}: check the collection."
            )
        report.unmapped = len(tiles)
        return report
    blocks = list(blocks_of(tiles).values())
    for start in range(0, len(blocks), BATCH_BLOCKS):
        frame = _read(maps, blocks[start : start + BATCH_BLOCKS], report.failures, advance)
        if len(frame):
            report.items.append(_publish(catalogue, maps, frame))
            mapped = int((frame["mapped_fraction"] > 0).sum())
            report.mapped += mapped
            report.unmapped += len(frame) - mapped
    return report


@dataclass(frozen=True)
class _Maps:
    """A collection's maps of some tiles.

    Attributes:
        collection: The collection.
        profile: Of the source catalogue.
        items: The maps by ID.
        of_tile: IDs of the newest maps of each tile that has any.
    """

    collection: pystac.Collection
    profile: str
    items: dict[str, pystac.Item]
    of_tile: dict[Tile, list[str]]

    @cached_property
    def legend(self) -> Legend:
        """What the maps' numbers mean."""
        return legend_of(self.collection, self.items[next(iter(self.of_tile.values()))[0]])


def _find_maps(origin: SourceCatalogue, collection: str, tiles: list[Tile]) -> _Maps:
    record = origin.collection(collection)
    squares = [_square(block) for block in blocks_of(tiles)]
    items = origin.search_collection(collection, outline(footprints(squares))[0], ALWAYS)
    by_id = {item.id: item for item in items}
    of_tile = {
        tile: _newest([by_id[one] for one in ids])
        for tile, ids in scenes_over(tiles, items).items()
    }
    return _Maps(record, origin.profile, by_id, of_tile)


def _square(block: Block) -> Tile:
    return Tile(block.zone, block.column, block.row, block.size * BLOCK_TILES)


def _newest(items: list[pystac.Item]) -> list[str]:
    # Maps of different years are different products: a tile is never patched from two of them.
    newest = max(scene_datetime(item) for item in items)
    return sorted(item.id for item in items if scene_datetime(item) == newest)


def _read(
    maps: _Maps,
    blocks: list[list[Tile]],
    failures: dict[str, str],
    advance: Callable[[int], None] | None,
) -> pd.DataFrame:
    rows = []
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for tiles, found in zip(
            blocks, pool.map(lambda tiles: _read_block(maps, tiles, failures), blocks), strict=True
        ):
            rows += found
            if advance:
                advance(len(tiles))
    return pd.DataFrame(rows)


def _read_block(maps: _Maps, tiles: list[Tile], failures: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of a block's tiles, without those that need a map that could not be read."""
    bounds = union_of([tile.bounds for tile in tiles])
    layers: dict[str, NDArray[np.uint8]] = {}
    windows = []
    for map_id in sorted({one for tile in tiles for one in maps.of_tile.get(tile, [])}):
        try:
            band = _map_asset(maps, map_id)
        except ReadError as error:
            failures[map_id] = str(error)
            continue
        windows.append(AssetWindow(map_id, band, maps.profile, tiles[0].zone, bounds, RESOLUTION))
    for window, numbers in zip(windows, read_assets(windows), strict=True):
        if isinstance(numbers, ReadError):
            failures[window.scene_id] = str(numbers)
        else:
            layers[window.scene_id] = maps.legend.class_of(numbers)
    rows = []
    for tile in tiles:
        used = maps.of_tile.get(tile, [])
        if all(map_id in layers for map_id in used):
            place = window_of(tile.bounds, bounds, RESOLUTION)
            rows.append(_row(maps, tile, {one: layers[one][place] for one in used}))
    return rows


def _map_asset(maps: _Maps, map_id: str) -> SceneBand:
    key, assets = maps.legend.asset, maps.items[map_id].assets
    if key not in assets:
        raise ReadError(f"{map_id} has no asset {key}: it has {', '.join(assets) or 'none'}.")
    return SceneBand(key, assets[key].href, 1.0, 0.0, maps.legend.nodata)


def _row(maps: _Maps, tile: Tile, layers: dict[str, NDArray[np.uint8]]) -> dict[str, Any]:
    side = tile.size // RESOLUTION
    places = np.zeros((side, side), np.uint8)
    used = []
    for map_id, layer in layers.items():
        adds = (places == 0) & (layer > 0)
        if adds.any():
            places[adds] = layer[adds]
            used.append(map_id)
    counts = np.bincount(places.ravel(), minlength=len(maps.legend.classes) + 1)[1:]
    mapped = counts.sum()
    shares = counts / mapped if mapped else np.full(len(counts), np.nan)
    return {
        "tile_id": tile.id,
        **dict(zip(maps.legend.classes, shares.tolist(), strict=True)),
        "mapped_fraction": float(mapped) / places.size,
        "source_maps": used,
    }


def _publish(catalogue: Catalogue, maps: _Maps, frame: pd.DataFrame) -> str:
    collection_id = land_cover_collection(maps.collection.id)
    frame = frame.sort_values("tile_id", ignore_index=True)
    squares = footprints([parse_tile_id(tile_id) for tile_id in frame["tile_id"]])
    table = gpd.GeoDataFrame(frame, geometry=squares, crs="OGC:CRS84")
    used = sorted({map_id for map_ids in frame["source_maps"] for map_id in map_ids})
    content = json.dumps([frame["tile_id"].tolist(), used, list(maps.legend.classes)])
    item_id = f"{maps.collection.id}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
    path = catalogue.asset_folder(collection_id, item_id) / "labels.parquet"
    credit = collection_credit(maps.collection)
    metadata = {name: credit[name] for name in ("license", "attribution")}
    write_geoparquet(path, table, metadata, _schema(maps.legend))
    shown = [maps.items[map_id] for map_id in used or sorted(maps.items)]
    item = land_cover_item(item_id, maps.collection, table, maps.legend.classes, shown, path)
    catalogue.publish(collection_id, item, lambda _: _verify(path, table))
    return item_id


def _schema(legend: Legend) -> pa.Schema:
    return pa.schema(
        [
            ("tile_id", pa.string()),
            *((name, pa.float32()) for name in legend.classes),
            ("mapped_fraction", pa.float32()),
            ("source_maps", pa.list_(pa.string())),
        ]
    )


def _verify(path: Path, table: pd.DataFrame) -> None:
    if list(read_geoparquet(path)["tile_id"]) != list(table["tile_id"]):
        raise CatalogueError(f"{path} does not read back as it was written: publish again.")
