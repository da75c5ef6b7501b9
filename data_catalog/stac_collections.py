"""How the catalogue's collections describe themselves: derived from their ID and their items."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pystac

from data_catalog import stac
from data_catalog.catalogue_records import MODEL_IN_USE, model_in_use
from data_catalog.licences import attribution, merge_sources

_KINDS = {
    "tiles": (
        "Observed tiles: {rest}",
        "Pixels of one sensor on the tile grid: a segment for every run that read new scenes. "
        "The newest valid row of a tile over all segments is its current observation.",
        ["tiles", "satellite imagery", "zarr"],
    ),
    "models": (
        "Hashing models",
        "Trained networks with everything needed to turn a tile into its hash code.",
        ["model", "hashing", "representation learning"],
    ),
    "labels": (
        "Pseudo multi-labels of {rest}",
        "What a model's training set was sorted into without supervision: a probability for each "
        "tile and cluster.",
        ["pseudo labels", "clusters", "geoparquet"],
    ),
    "land-cover": (
        "Land cover of tiles: {rest}",
        "Share of every class of a land cover map in each tile, counted on pixels of 10 m.",
        ["land cover", "labels", "geoparquet"],
    ),
    "codes": (
        "Hash codes of {rest}",
        "Binary hash codes of tiles, a table per UTM zone. Tiles that look alike have codes that "
        "differ in few bits: compare them by Hamming distance, and only codes of the same model.",
        ["hash codes", "embeddings", "similarity search", "geoparquet"],
    ),
}


def describe(
    collection_id: str, item: pystac.Item, old: dict[str, Any] | None, item_ids: list[str]
) -> dict[str, Any]:
    """The record of a collection once an item is published in it.

    Args:
        collection_id: ``models`` or ``tiles-…``, ``labels-…``, ``land-cover-…``, ``codes-…``.
        item: The new item: extent, licence and providers are carried over from it.
        old: The record as it was; None for a new collection.
        item_ids: The items that the record is to list, in order.
    """
    kind = next(k for k in _KINDS if collection_id == k or collection_id.startswith(f"{k}-"))
    rest = collection_id[len(kind) + 1 :]
    title, description, keywords = _KINDS[kind]
    old = old or {}
    providers = _merge(old.get("providers", []), item.properties.get("providers", []), "name")
    licences = [k.to_dict(transform_href=False) for k in item.links if k.rel == "license"]
    sources = merge_sources(
        old.get("rshash:sources", {}), item.properties.get("rshash:sources", {})
    )
    old_licences = [k for k in old.get("links", []) if k["rel"] == "license"]
    record: dict[str, Any] = {
        "type": "Collection",
        "stac_version": stac.STAC_VERSION,
        "stac_extensions": [],
        "id": collection_id,
        "title": title.format(rest=rest),
        "description": description,
        "keywords": keywords,
        "license": item.properties.get("license", "other"),
        "providers": providers,
        "attribution": attribution(sources) or item.properties.get("attribution", ""),
        "rshash:sources": sources,
        "extent": extent_of([item], old.get("extent")),
        "links": [
            stac.link("root", "../catalog.json"),
            stac.link("parent", "../catalog.json"),
            *_merge(old_licences, licences, "href"),
        ],
    }
    if kind == "models" and item_ids:
        record[MODEL_IN_USE] = model_in_use(old) or item_ids[0]
    if kind == "codes":
        _describe_embeddings(record, item)
    record["links"] += [stac.link("item", f"./{i}/{i}.json") for i in item_ids]
    return record


def _describe_embeddings(record: dict[str, Any], item: pystac.Item) -> None:
    model, sensor = item.properties["rshash:model"], item.properties["rshash:sensor"]
    record["stac_extensions"].append(stac.EMBEDDINGS)
    record |= {
        "emb:type": "chip",
        "emb:dimensions": item.properties["rshash:bits"],
        "data_type": "uint64",
        "emb:chip_layout": {
            "layout_type": "named_grid",
            "grid_id": item.properties["rshash:grid"],
        },
    }
    record["links"] += [
        stac.link("emb:model", f"../models/{model}/{model}.json"),
        stac.link("emb:source-data", f"../tiles-{sensor}/collection.json"),
    ]


def _merge(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return list({record[key]: record for record in [*old, *new]}.values())


def extent_of(items: list[pystac.Item], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """The extent of items in space and time.

    Args:
        items: The items; at least one.
        old: An extent that it is to cover as well.
    """
    boxes = [
        *(old["spatial"]["bbox"][:1] if old else []),
        *(item.bbox for item in items if item.bbox),
    ]
    spans = [*(old["temporal"]["interval"][:1] if old else []), *map(_interval, items)]
    return {
        "spatial": {"bbox": [union_of_boxes(boxes)]},
        "temporal": {"interval": [[min(s[0] for s in spans), max(s[1] for s in spans)]]},
    }


def _interval(item: pystac.Item) -> list[str]:
    start = item.properties.get("start_datetime")
    if start:
        return [start, item.properties["end_datetime"]]
    moment = item.datetime
    assert isinstance(moment, datetime)
    return [stac.timestamp(moment)] * 2


def union_of_boxes(boxes: list[list[float]]) -> list[float]:
    """The smallest box around boxes of west, south, east and north; west > east crosses 180°."""
    if not boxes:
        return [-180.0, -90.0, 180.0, 90.0]
    south, north = min(box[1] for box in boxes), max(box[3] for box in boxes)
    crossing = any(west > east for west, _, east, _ in boxes)
    west, east = min(box[0] for box in boxes), max(box[2] for box in boxes)
    if crossing:
        west, east = -180.0, 180.0
    # The same boxes in longitudes of 0 to 540, which go on over the antimeridian.
    over_west = min(box[0] % 360.0 for box in boxes)
    over_east = max(_east_of(box) for box in boxes)
    if over_west <= 180.0 < over_east and over_east - over_west < east - west:
        west, east = over_west, over_east - 360.0
    return [west, south, east, north]


def _east_of(box: list[float]) -> float:
    west, _, east, _ = box
    return west % 360.0 + (east - west) + (360.0 if east < west else 0.0)
