"""What the service answers, as JSON; and the schemas that document it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from data_catalog.grid import EXAMPLE_ID
from data_catalog.query_found import Found, Tiles
from data_catalog.service.snapshots import Snapshot

DECIMALS = 6
"""Of a degree: a tenth of a metre."""

Rows = list[bytes]
"""JSON of tiles that were found: thousands are kept, and bytes cost the garbage collector nothing.
"""


class SimilarTile(BaseModel):
    """A tile that was found."""

    tile_id: str = Field(examples=[EXAMPLE_ID])
    distance: float = Field(description="Bits that differ.", examples=[4])
    lon: float = Field(description="Longitude of the centre, degrees.", examples=[9.06])
    lat: float = Field(description="Latitude of the centre, degrees.", examples=[48.52])
    away_km: float | None = Field(description="From the tile asked for.", examples=[12.4])
    datetime: str = Field(description="Moment of the observation.")
    clear_fraction: float = Field(examples=[0.98])
    label: int | None = Field(description="Likeliest pseudo-label.")
    corners: list[list[float]] = Field(description="The square: four times lon, lat.")


class SimilarTiles(BaseModel):
    """The tiles whose codes are nearest, by distance, then by tile ID."""

    query: dict[str, Any] = Field(examples=[{"tile_id": EXAMPLE_ID}])
    model_id: str
    bits: int = Field(examples=[64])
    version: str = Field(description="Version of the catalogue.")
    found: int = Field(description="Tiles found, over all pages.")
    offset: int
    results: list[SimilarTile]
    next: str | None = Field(description="Address of the next page, relative to this one.")


class TileDescription(BaseModel):
    """A tile and its code."""

    tile_id: str = Field(examples=[EXAMPLE_ID])
    datetime: str
    clear_fraction: float
    code: str = Field(description="Hexadecimal, bit 0 first.", examples=["9f02c4d1a7e85b36"])
    code_source: Literal["network", "learned"]
    source_scenes: list[str]
    lon: float
    lat: float
    label: int | None = Field(description="Likeliest pseudo-label.")
    geometry: dict[str, Any] = Field(description="GeoJSON polygon.")


class TileFeatures(BaseModel):
    """Tiles as a GeoJSON feature collection."""

    type: Literal["FeatureCollection"]
    total: int = Field(description="Tiles in the bounding box; the features are a part of them.")
    features: list[dict[str, Any]]


class CollectionDescription(BaseModel):
    """What is served."""

    model_id: str
    bits: int
    sensor: str
    sensor_title: str = Field(examples=["Sentinel-2 Level-2A"])
    version: str
    tiles: int
    tile_size: int = Field(description="Metres on a side.")
    labels: int = Field(description="Number of pseudo-labels.")
    bbox: list[float] = Field(description="West, south, east, north.")
    period: list[str] = Field(description="First and last observation.")
    attribution: str
    images: bool = Field(description="Whether images can be asked for.")


def similar_rows(snapshot: Snapshot, found: Found) -> list[Rows]:
    """What each query found, a JSON object for each of its tiles."""
    tiles = found.tiles
    columns = {
        "tile_id": tiles.tile_ids,
        "distance": _rounded(found.distances),
        "lon": _rounded(tiles.centres[:, 0]),
        "lat": _rounded(tiles.centres[:, 1]),
        "away_km": _rounded(found.away_km),
        "datetime": np.datetime_as_string(tiles.datetimes, "s", "UTC").tolist(),
        "clear_fraction": _rounded(tiles.clear_fractions),
        "label": snapshot.labels_of(tiles.tile_ids),
        "corners": _rounded(tiles.corners),
    }
    rows = [
        orjson.dumps(dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    return [rows[held] for held in found.slices()]


def tile_description(snapshot: Snapshot, tile: dict[str, Any]) -> bytes:
    """JSON of what ``PublishedCodes.tile`` tells of a tile."""
    [label] = snapshot.labels_of([tile["tile_id"]])
    description = {**tile, "label": label, "geometry": shapely.geometry.mapping(tile["geometry"])}
    return orjson.dumps(description, option=orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY)


def feature_collection(snapshot: Snapshot, tiles: Tiles, total: int) -> bytes:
    """GeoJSON of tiles, a feature each, of so many in all."""
    features = [
        {
            "type": "Feature",
            "id": tile_id,
            "properties": {"datetime": day, "clear_fraction": part, "label": label},
            "geometry": {"type": "Polygon", "coordinates": [[*square, square[0]]]},
        }
        for tile_id, day, part, label, square in zip(
            tiles.tile_ids,
            np.datetime_as_string(tiles.datetimes, "D").tolist(),
            _rounded(tiles.clear_fractions),
            snapshot.labels_of(tiles.tile_ids),
            _rounded(tiles.corners),
            strict=True,
        )
    ]
    return orjson.dumps({"type": "FeatureCollection", "total": total, "features": features})


def _rounded(values: NDArray[Any]) -> list[Any]:
    # float32 in the table: its digits end at the sixth.
    whole = np.issubdtype(values.dtype, np.integer)
    return list((values if whole else values.astype(float).round(DECIMALS)).tolist())
