"""STAC items of tables of tiles: segments, pseudo-labels, land cover and code tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pystac
from shapely.geometry.base import BaseGeometry

from data_catalog import stac
from data_catalog.geometry import outline
from data_catalog.grid import Tile, Zone, parse_tile_id
from data_catalog.licences import (
    Sources,
    collection_credit,
    collection_licence_links,
    licence_fields,
    licence_links,
    source_years,
)
from data_catalog.redaction import redacted
from data_catalog.scenes import scene_datetime
from data_catalog.sensors import Sensor

if TYPE_CHECKING:
    from rshash.model import Model

PARQUET = "application/vnd.apache.parquet"
ZARR = "application/vnd.zarr; version=3"

COLUMNS = {
    "tile_id": "Tile ID: the grid:code of the tile's square",
    "row": "Row of the tile in the Zarr array",
    "datetime": "When the tile was observed",
    "clear_fraction": "Share of the tile's pixels that are observed and free of cloud and shadow",
    "source_scenes": "IDs of the scenes that the pixels come from",
    "considered_scenes": "IDs of all scenes that were looked at for the tile",
    "state": "valid or invalid",
    "reason": "Why the tile is invalid",
    "code_source": "network: made by the model from pixels; learned: optimised with the model",
    "model_id": "The model that the code belongs to",
    "flipped_bits": "Bits that differ from the code in the version before; null for new tiles",
    "probabilities": "Probability of each pseudo-label",
    "mapped_fraction": "Share of the tile's pixels that the map gives a class",
    "source_maps": "IDs of the maps that the shares were counted in",
    "geometry": "The tile's square in longitude and latitude",
    "bbox": "Bounding box of the geometry, degrees",
}


_COMPOSITES = {
    "best": "A tile is of the pass that saw most of it clear.",
    "median": "A pixel is the median of the passes that saw it clear.",
}


def segment_item(
    segment_id: str,
    sensor: Sensor,
    index: gpd.GeoDataFrame,
    bands: Iterable[str],
    scene_hrefs: Mapping[str, str],
    folder: Path,
    composite: str = "best",
) -> pystac.Item:
    """The item of a segment.

    Args:
        segment_id: The item's ID.
        sensor: The sensor.
        index: The segment's index: ``datetime``, ``state``, ``tile_id`` and ``geometry`` are used.
        bands: Canonical names of the array's bands, in order.
        scene_hrefs: Address of each source scene's item by its ID, unsigned.
        folder: Where ``pixels.zarr`` and ``index.parquet`` are staged.
        composite: ``best`` or ``median``: how its tiles were put together.
    """
    stored = sensor.stored
    valid = index[index["state"] == "valid"]
    shown = valid if len(valid) else index
    sources = source_years(sensor.id, shown["datetime"])
    item = _tile_item(segment_id, shown, licence_fields(sources), licence_links(sources))
    item.properties |= {
        "gsd": sensor.resolution,
        "rshash:sensor": sensor.id,
        "rshash:composite": composite,
        "table:row_count": len(index),
        "processing:lineage": "Scenes were co-registered onto the tile grid and converted to "
        f"{stored.quantity}; unclear tiles were marked invalid. {_COMPOSITES[composite]}",
    }
    item.stac_extensions.append(stac.TABLE)
    item.add_asset(
        "pixels",
        pystac.Asset(
            "./pixels.zarr",
            "Pixels",
            f"Array {stored.quantity} (tile, band, y, x): {stored.quantity} in {stored.unit} is "
            f"number x {stored.scale:g} + {stored.offset:g}; 0 where not observed.",
            ZARR,
            ["data"],
            {
                "bands": [{"name": band, "gsd": sensor.resolution} for band in bands],
                "data_type": "uint16",
                "nodata": 0,
                "unit": stored.unit,
            },
        ),
    )
    item.add_asset("index", table_asset(folder / "index.parquet", "Index of tiles", ["metadata"]))
    for scene_id, href in sorted(scene_hrefs.items()):
        link = pystac.Link("derived_from", href, "application/geo+json", scene_id)
        item.add_link(link)
    return item


def labels_item(
    item_id: str,
    model_id: str,
    frame: gpd.GeoDataFrame,
    sources: Sources,
    path: Path,
    picture: Path,
) -> pystac.Item:
    """The item of a model's pseudo multi-labels.

    Args:
        item_id: The item's ID.
        model_id: The model.
        frame: ``tile_id`` and ``geometry`` of the labelled tiles.
        sources: What the labels were made from.
        path: The staged table.
        picture: The staged picture of what the labels look like.
    """
    now = datetime.now(UTC)
    item = _tile_item(item_id, frame, licence_fields(sources), licence_links(sources), (now, now))
    item.properties |= {
        "rshash:model": model_id,
        "table:row_count": len(frame),
        "processing:lineage": "Soft assignment of each tile to clusters of a shared latent space.",
    }
    item.stac_extensions.append(stac.TABLE)
    item.add_asset("labels", table_asset(path, "Pseudo multi-labels", ["data"]))
    title, about = "Clusters", "The most typical tiles of each cluster, with its share of all tiles"
    item.add_asset(
        "overview",
        pystac.Asset(f"./{picture.name}", title, about, pystac.MediaType.PNG, ["overview"]),
    )
    href = f"../../models/{model_id}/{model_id}.json"
    item.add_link(pystac.Link("derived_from", href, "application/geo+json"))
    return item


def land_cover_item(
    item_id: str,
    collection: pystac.Collection,
    frame: gpd.GeoDataFrame,
    classes: Mapping[str, Sequence[int]],
    maps: Sequence[pystac.Item],
    path: Path,
) -> pystac.Item:
    """The item of a table of land cover.

    Args:
        item_id: The item's ID.
        collection: The maps' collection, as its catalogue describes it.
        frame: ``tile_id`` and ``geometry`` of the tiles.
        classes: Numbers of each class in the maps, by its name: the table's column.
        maps: The items that the shares were counted in.
        path: The staged table.
    """
    starts = [scene_datetime(one) for one in maps]
    ends = [one.common_metadata.end_datetime or scene_datetime(one) for one in maps]
    item = _tile_item(
        item_id,
        frame,
        collection_credit(collection),
        collection_licence_links(collection),
        (min(starts), max(ends)),
    )
    item.properties |= {
        "title": f"Land cover of {len(frame)} tiles from {collection.title or collection.id}",
        "table:row_count": len(frame),
        "processing:lineage": "Pixels of each class were counted in each tile, on the tile's own "
        "grid of 10 m; the map was resampled by nearest neighbour.",
        "rshash:land_cover": collection.id,
        "rshash:classes": {name: list(numbers) for name, numbers in classes.items()},
    }
    item.stac_extensions.append(stac.TABLE)
    described = {name: f"Share of the tile's mapped pixels: {name}" for name in classes}
    item.add_asset("labels", table_asset(path, "Land cover", ["data"], described))
    for one in maps:
        if one.get_self_href():
            href = redacted(one.get_self_href() or "")
            item.add_link(pystac.Link("derived_from", href, "application/geo+json", one.id))
    return item


def code_table_item(
    item_id: str,
    model: Model,
    table: pa.Table,
    path: Path,
    version_number: int,
    scene_hrefs: Mapping[str, str],
    region: tuple[BaseGeometry, list[float]],
) -> pystac.Item:
    """The item of a code table: one UTM zone, one model, one version.

    Args:
        item_id: The item's ID.
        model: The model that made the codes.
        table: The table.
        path: The staged table.
        version_number: 1 for the first version of the zone.
        scene_hrefs: Address of each source scene's item by its ID, unsigned.
        region: What the tiles cover together, and its bounding box.
    """
    moments = table["datetime"].to_pandas()
    sources = source_years(model.primary_sensor, moments)
    tile = parse_tile_id(table["tile_id"][0].as_py())
    item = _item(
        item_id,
        region,
        (moments.min(), moments.max()),
        {tile.zone},
        licence_fields(sources),
        licence_links(sources),
    )
    code_sources = pc.value_counts(table["code_source"]).to_pylist()
    item.properties |= {
        "title": f"{model.bits}-bit codes of zone {tile.zone} by {model.model_id}",
        "version": str(version_number),
        "grid:code": grid_code(tile),
        "table:row_count": table.num_rows,
        "processing:lineage": _lineage(
            model.model_id, {one["values"]: one["counts"] for one in code_sources}
        ),
        "rshash:model": model.model_id,
        "rshash:sensor": model.primary_sensor,
        "rshash:bits": model.bits,
        "rshash:bit_order": "bit 0 is the most significant bit of code_0",
        "rshash:metric": "hamming",
        "rshash:code_source": sorted(one["values"] for one in code_sources),
        "rshash:grid": grid_code(tile).split("-")[0],
    }
    item.stac_extensions += [stac.TABLE, stac.GRID, stac.EMBEDDINGS]
    item.add_asset("embeddings", table_asset(path, "Hash codes", ["data"]))
    model_href = f"../../models/{model.model_id}/{model.model_id}.json"
    for rel in ("derived_from", "emb:model"):
        item.add_link(pystac.Link(rel, model_href, "application/geo+json", model.model_id))
    for scene_id, href in sorted(scene_hrefs.items()):
        item.add_link(pystac.Link("derived_from", href, "application/geo+json", scene_id))
    return item


def _lineage(model_id: str, code_sources: Mapping[str, int]) -> str:
    learned = code_sources.get("learned", 0)
    kept = f" {learned} labelled tiles have the code that was learned with it." if learned else ""
    return f"Tiles were encoded by model {model_id}.{kept}"


def grid_code(tile: Tile) -> str:
    """The grid code of the zone that holds a tile, such as ``UTM1920-32N``: the start of its ID."""
    return f"UTM{tile.size}-{tile.zone}"


def _tile_item(
    item_id: str,
    frame: gpd.GeoDataFrame,
    licence: Mapping[str, Any],
    links: list[pystac.Link],
    interval: tuple[datetime, datetime] | None = None,
) -> pystac.Item:
    start, end = interval or (datetime.now(UTC),) * 2
    if interval is None and frame["datetime"].notna().any():
        observed = pd.to_datetime(frame["datetime"], utc=True)
        start, end = observed.min(), observed.max()
    zones = {tile.zone for tile in _tiles(frame)}
    return _item(item_id, outline(frame.geometry.to_numpy()), (start, end), zones, licence, links)


def _item(
    item_id: str,
    region: tuple[BaseGeometry, list[float]],
    interval: tuple[datetime, datetime],
    zones: set[Zone],
    licence: Mapping[str, Any],
    links: list[pystac.Link],
) -> pystac.Item:
    geometry, bbox = region
    item = pystac.Item(
        item_id,
        geometry.__geo_interface__,
        bbox,
        None,
        {},
        start_datetime=interval[0],
        end_datetime=interval[1],
        stac_extensions=[stac.PROCESSING, stac.PROJECTION],
    )
    item.properties |= {
        **licence,
        **software(),
        "proj:code": f"EPSG:{zones.pop().epsg}" if len(zones) == 1 else None,
    }
    item.add_links(links)
    return item


def _tiles(frame: gpd.GeoDataFrame) -> list[Tile]:
    return [parse_tile_id(tile_id) for tile_id in frame["tile_id"]]


def software() -> dict[str, Any]:
    """The field that names this program and its version."""
    return {"processing:software": {"rshash": version("rshash")}}


def table_asset(
    path: Path, title: str, roles: list[str], described: Mapping[str, str] | None = None
) -> pystac.Asset:
    """The asset of a staged Parquet table, with its columns.

    Args:
        path: The table.
        title: What it is called.
        roles: What it is for.
        described: What columns mean, beside those that many tables have.
    """
    file = pq.ParquetFile(path)
    known = COLUMNS | dict(described or {})
    columns = [
        {"name": field.name, "type": str(field.type), "description": _column(field.name, known)}
        for field in file.schema_arrow
    ]
    fields = {
        "table:columns": columns,
        "table:row_count": file.metadata.num_rows,
    }
    if "geometry" in file.schema_arrow.names:
        fields["table:primary_geometry"] = "geometry"
    return pystac.Asset(f"./{path.name}", title, None, PARQUET, roles, fields)


def _column(name: str, known: Mapping[str, str]) -> str:
    if name.startswith("code_") and name[5:].isdigit():
        first = 64 * int(name[5:])
        return f"Bits {first} to {first + 63} of the code, the first as the most significant"
    return known.get(name, name)
