"""Routes of tiles: what is known of one, its picture, and those of a region."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from cachetools import LRUCache
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from data_catalog.service.answers import (
    TileDescription,
    TileFeatures,
    feature_collection,
    tile_description,
)
from data_catalog.service.conditional import Current, answer, unchanged
from data_catalog.service.parameters import (
    BBOX,
    TileId,
    bounds,
    known_parameters,
    published_tile,
)
from data_catalog.service.pictures import FORMATS
from data_catalog.service.problems import documented

GEOJSON = "application/geo+json"
MOST_FEATURES = 20_000
FOREVER = "public, max-age=31536000, immutable"

router = APIRouter(tags=["Tiles"], dependencies=[Depends(known_parameters)])


@router.get(
    "/tiles",
    response_class=Response,
    responses={
        200: {"content": {GEOJSON: {"schema": TileFeatures.model_json_schema()}}},
        **documented(422),
    },
)
async def tiles(
    request: Request,
    snapshot: Current,
    bbox: Annotated[str, BBOX],
    limit: Annotated[
        int,
        Query(
            description="Of more, so many evenly spread ones.",
            ge=1,
            le=MOST_FEATURES,
        ),
    ] = 5000,
) -> Response:
    """The tiles of a bounding box that have a code, as GeoJSON."""
    region = bounds(bbox)
    if (same := unchanged(request, snapshot)) is not None:
        return same

    def collect() -> bytes:
        return feature_collection(snapshot, *snapshot.codes.tiles_within(region, limit))

    return answer(await asyncio.to_thread(collect), snapshot, GEOJSON)


@router.get(
    "/tiles/{tile_id}",
    response_class=Response,
    responses={200: {"model": TileDescription}, **documented(404, 422)},
)
async def tile(request: Request, snapshot: Current, tile_id: TileId) -> Response:
    """What is known of a tile, and its code."""
    tile_id = published_tile(snapshot.codes, tile_id)
    found = await asyncio.to_thread(snapshot.codes.tile, tile_id)
    same = unchanged(request, snapshot)
    return same or answer(tile_description(snapshot, found), snapshot)


@router.get(
    "/tiles/{tile_id}/picture",
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "content": {
                one: {"schema": {"type": "string", "format": "binary"}} for one in FORMATS.values()
            },
        },
        **documented(404, 422),
    },
)
async def picture(
    request: Request,
    snapshot: Current,
    tile_id: TileId,
    size: Annotated[int, Query(description="Pixels on a side.", ge=16, le=768)] = 192,
    format: Annotated[Literal["webp", "png"], Query(description="File format.")] = "webp",
    version: Annotated[
        str | None,
        Query(description="Version of the catalogue; the picture can then be kept for ever."),
    ] = None,
) -> Response:
    """A tile's pixels in colour; all tiles in one stretch, so that their colours compare."""
    tile_id = published_tile(snapshot.codes, tile_id)
    if (same := unchanged(request, snapshot)) is not None:
        return same
    key = (snapshot.version, tile_id, size, format)
    kept: LRUCache[tuple[str, str, int, str], bytes] = request.app.state.kept_pictures
    content = kept.get(key)
    if content is None:
        content = await asyncio.to_thread(snapshot.pictures.picture, tile_id, size, format)
        kept[key] = content
    headers = {"cache_control": FOREVER} if version == snapshot.version else {}
    return answer(content, snapshot, FORMATS[format], **headers)
