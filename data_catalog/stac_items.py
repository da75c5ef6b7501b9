"""STAC items of what the catalogue holds: segments, models, pseudo-labels and code tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import pyarrow.parquet as pq
import pystac

from data_catalog import stac
from data_catalog.geometry import outline
from data_catalog.grid import Tile, parse_tile_id
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
from data_catalog.sensors import Sensor, get_sensor

if TYPE_CHECKING:
    from rshash.model import Model

PARQUET = "application/vnd.apache.parquet"
ZARR = "application/vnd.zarr; version=3"
SAFETENSORS = "application/vnd.safetensors"

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
    "probabilities": "Probability of each pseudo-label",
    "mapped_fraction": "Share of the tile's pixels that the map gives a class",
    "source_maps": "IDs of the maps that the shares were counted in",
    "geometry": "The tile's square in longitude and latitude",
    "bbox": "Bounding box of the geometry, degrees",
}


def segment_item(
    segment_id: str,
    sensor: Sensor,
    index: gpd.GeoDataFrame,
    bands: Iterable[str],
    scene_hrefs: Mapping[str, str],
    folder: Path,
) -> pystac.Item:
    """The item of a segment.

    Args:
        segment_id: The item's ID.
        sensor: The sensor.
        index: The segment's index: ``datetime``, ``state``, ``tile_id`` and ``geometry`` are used.
        bands: Canonical names of the array's bands, in order.
        scene_hrefs: Address of each source scene's item by its ID, unsigned.
        folder: Where ``pixels.zarr`` and ``index.parquet`` are staged.
    """
    valid = index[index["state"] == "valid"]
    shown = valid if len(valid) else index
    sources = source_years(sensor.id, shown["datetime"])
    item = _tile_item(segment_id, shown, licence_fields(sources), licence_links(sources))
    item.properties |= {
        "gsd": sensor.resolution,
        "rshash:sensor": sensor.id,
        "table:row_count": len(index),
        "processing:lineage": "Scenes were co-registered onto the tile grid and converted to "
        "surface reflectance; unclear tiles were marked invalid.",
    }
    item.stac_extensions.append(stac.TABLE)
    item.add_asset(
        "pixels",
        pystac.Asset(
            "./pixels.zarr",
            "Pixels",
            "Array reflectance (tile, band, y, x): reflectance x 10000, 0 where not observed.",
            ZARR,
            ["data"],
            {
                "bands": [{"name": band, "gsd": sensor.resolution} for band in bands],
                "data_type": "uint16",
                "nodata": 0,
            },
        ),
    )
    item.add_asset("index", _table_asset(folder / "index.parquet", "Index of tiles", ["metadata"]))
    for scene_id, href in sorted(scene_hrefs.items()):
        link = pystac.Link("derived_from", href, "application/geo+json", scene_id)
        item.add_link(link)
    return item


def model_item(model: Model, sources: Sources, segment_hrefs: Iterable[str]) -> pystac.Item:
    """The item of a trained model, with the MLM extension.

    Args:
        model: The model.
        sources: What it was trained on.
        segment_hrefs: Addresses of the segments it was trained on, relative to the item.
    """
    item = pystac.Item(model.model_id, None, None, datetime.now(UTC), {})
    item.stac_extensions = [stac.MLM, stac.PROCESSING]
    pixels = model.tile_size // get_sensor(model.primary_sensor).resolution
    item.properties |= {
        "title": f"{model.method}, {model.bits} bit, for {model.primary_sensor}",
        **licence_fields(sources),
        **_software(),
        "processing:lineage": f"Trained without labels on tiles of {', '.join(sources)}.",
        "bands": [{"name": band} for band in model.bands],
        "mlm:name": model.model_id,
        "mlm:architecture": f"{model.method} ({model.extractor.spec()['kind']} features)",
        "mlm:tasks": ["similarity-search"],
        "mlm:framework": "PyTorch",
        "mlm:input": [_model_input(model, pixels)],
        "mlm:output": [_model_output(model)],
        "rshash:model": model.model_id,
        "rshash:bits": model.bits,
        "rshash:sensor": model.primary_sensor,
        "rshash:secondary_sensors": list(model.secondary_sensors),
        "rshash:tile_size": model.tile_size,
    }
    # The core schema allows bands in the properties only where an asset has them too.
    weights = {
        "mlm:artifact_type": "safetensors.torch.save_file",
        "bands": item.properties["bands"],
    }
    item.add_asset(
        "weights",
        pystac.Asset("./weights.safetensors", "Weights", None, SAFETENSORS, ["mlm:model"], weights),
    )
    item.add_asset(
        "description",
        pystac.Asset(
            "./model.json",
            "Everything besides the weights that is needed to make codes",
            None,
            "application/json",
            ["metadata"],
        ),
    )
    for href in segment_hrefs:
        item.add_link(pystac.Link("derived_from", href, "application/geo+json"))
    item.add_links(licence_links(sources))
    return item


def labels_item(
    item_id: str, model_id: str, frame: gpd.GeoDataFrame, sources: Sources, path: Path
) -> pystac.Item:
    """The item of a model's pseudo multi-labels.

    Args:
        item_id: The item's ID.
        model_id: The model.
        frame: ``tile_id`` and ``geometry`` of the labelled tiles.
        sources: What the labels were made from.
        path: The staged table.
    """
    now = datetime.now(UTC)
    item = _tile_item(item_id, frame, licence_fields(sources), licence_links(sources), (now, now))
    item.properties |= {
        "rshash:model": model_id,
        "table:row_count": len(frame),
        "processing:lineage": "Soft assignment of each tile to clusters of a shared latent space.",
    }
    item.stac_extensions.append(stac.TABLE)
    item.add_asset("labels", _table_asset(path, "Pseudo multi-labels", ["data"]))
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
    item.add_asset("labels", _table_asset(path, "Land cover", ["data"], described))
    for one in maps:
        if one.get_self_href():
            href = redacted(one.get_self_href() or "")
            item.add_link(pystac.Link("derived_from", href, "application/geo+json", one.id))
    return item


def code_table_item(
    item_id: str,
    model: Model,
    frame: gpd.GeoDataFrame,
    path: Path,
    version_number: int,
    scene_hrefs: Mapping[str, str],
) -> pystac.Item:
    """The item of a code table: one UTM zone, one model, one version.

    Args:
        item_id: The item's ID.
        model: The model that made the codes.
        frame: The table.
        path: The staged table.
        version_number: 1 for the first version of the zone.
        scene_hrefs: Address of each source scene's item by its ID, unsigned.
    """
    sources = source_years(model.primary_sensor, frame["datetime"])
    item = _tile_item(item_id, frame, licence_fields(sources), licence_links(sources))
    item.properties |= {
        "title": f"{model.bits}-bit codes of zone {_tiles(frame)[0].zone} by {model.model_id}",
        "version": str(version_number),
        "grid:code": grid_code(_tiles(frame)[0]),
        "table:row_count": len(frame),
        "processing:lineage": f"Tiles were encoded by model {model.model_id}.",
        "rshash:model": model.model_id,
        "rshash:sensor": model.primary_sensor,
        "rshash:bits": model.bits,
        "rshash:bit_order": "bit 0 is the most significant bit of code_0",
        "rshash:metric": "hamming",
        "rshash:code_source": sorted(set(frame["code_source"])),
        "rshash:grid": grid_code(_tiles(frame)[0]).split("-")[0],
    }
    item.stac_extensions += [stac.TABLE, stac.GRID, stac.EMBEDDINGS]
    item.add_asset("embeddings", _table_asset(path, "Hash codes", ["data"]))
    model_href = f"../../models/{model.model_id}/{model.model_id}.json"
    for rel in ("derived_from", "emb:model"):
        item.add_link(pystac.Link(rel, model_href, "application/geo+json", model.model_id))
    for scene_id, href in sorted(scene_hrefs.items()):
        item.add_link(pystac.Link("derived_from", href, "application/geo+json", scene_id))
    return item


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
    region, bbox = outline(frame.geometry.to_numpy())
    start, end = interval or (datetime.now(UTC),) * 2
    if interval is None and frame["datetime"].notna().any():
        observed = pd.to_datetime(frame["datetime"], utc=True)
        start, end = observed.min(), observed.max()
    item = pystac.Item(
        item_id,
        region.__geo_interface__,
        bbox,
        None,
        {},
        start_datetime=start,
        end_datetime=end,
        stac_extensions=[stac.PROCESSING, stac.PROJECTION],
    )
    zones = {tile.zone for tile in _tiles(frame)}
    item.properties |= {
        **licence,
        **_software(),
        "proj:code": f"EPSG:{zones.pop().epsg}" if len(zones) == 1 else None,
    }
    item.add_links(links)
    return item


def _tiles(frame: gpd.GeoDataFrame) -> list[Tile]:
    return [parse_tile_id(tile_id) for tile_id in frame["tile_id"]]


def _software() -> dict[str, Any]:
    return {"processing:software": {"rshash": version("rshash")}}


def _table_asset(
    path: Path, title: str, roles: list[str], described: Mapping[str, str] | None = None
) -> pystac.Asset:
    file = pq.ParquetFile(path)
    known = COLUMNS | dict(described or {})
    columns = [
        {"name": field.name, "type": str(field.type), "description": _column(field.name, known)}
        for field in file.schema_arrow
    ]
    fields = {
        "table:columns": columns,
        "table:row_count": file.metadata.num_rows,
        "table:primary_geometry": "geometry",
    }
    return pystac.Asset(f"./{path.name}", title, None, PARQUET, roles, fields)


def _column(name: str, known: Mapping[str, str]) -> str:
    if name.startswith("code_") and name[5:].isdigit():
        first = 64 * int(name[5:])
        return f"Bits {first} to {first + 63} of the code, the first as the most significant"
    return known.get(name, name)


def _model_input(model: Model, pixels: int) -> dict[str, Any]:
    return {
        "name": f"Tile of {model.primary_sensor}",
        "description": "Surface reflectance, NaN where not observed",
        "bands": list(model.bands),
        "input": {
            "shape": [-1, len(model.bands), pixels, pixels],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
    }


def _model_output(model: Model) -> dict[str, Any]:
    return {
        "name": "Hash code",
        "description": "Bits packed into 64-bit words, bit 0 as the most significant bit of word 0",
        "tasks": ["similarity-search"],
        "result": {
            "shape": [-1, -(-model.bits // 64)],
            "dim_order": ["batch", "embedding"],
            "data_type": "uint64",
        },
    }
