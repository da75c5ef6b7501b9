"""Routes of searches: the tiles most like a tile, a place, examples, or an image."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from data_catalog.errors import QueryError
from data_catalog.service.answers import Rows, SimilarTiles
from data_catalog.service.conditional import Current, answer, unchanged
from data_catalog.service.parameters import (
    Examples,
    Limit,
    Offset,
    Search,
    TileId,
    known_parameters,
    published_tile,
    search,
    tile_at,
)
from data_catalog.service.problems import ServiceError, documented
from data_catalog.service.snapshots import Snapshot
from data_catalog.service.uploads import MEDIA_TYPES, receive_image

router = APIRouter(tags=["Similar tiles"], dependencies=[Depends(known_parameters)])
Wanted = Annotated[Search, Depends(search)]
PAGE = 100


@router.get(
    "/tiles/{tile_id}/similar",
    response_class=Response,
    responses={200: {"model": SimilarTiles}, **documented(404, 422)},
)
async def similar_to_tile(
    request: Request,
    snapshot: Current,
    tile_id: TileId,
    wanted: Wanted,
    limit: Limit = PAGE,
    offset: Offset = 0,
) -> Response:
    """The tiles whose codes are nearest to a tile's; the tile itself is not among them."""
    tile_id = published_tile(snapshot.codes, tile_id)
    rows = await request.app.state.searches.similar(snapshot, tile_id, wanted)
    return _page(request, snapshot, {"tile_id": tile_id}, rows, limit, offset)


@router.get(
    "/similar",
    response_class=Response,
    responses={200: {"model": SimilarTiles}, **documented(404, 422)},
)
async def similar_to_place(
    request: Request,
    snapshot: Current,
    wanted: Wanted,
    lon: Annotated[float | None, Query(description="Longitude, degrees.", ge=-180, le=180)] = None,
    lat: Annotated[float | None, Query(description="Latitude, degrees.", ge=-80, le=84)] = None,
    like: Examples = [],  # noqa: B006
    unlike: Examples = [],  # noqa: B006
    limit: Limit = PAGE,
    offset: Offset = 0,
) -> Response:
    """The tiles most like the one at a place; or more like some tiles, and less like others."""
    searches = request.app.state.searches
    if lon is not None and lat is not None and not like and not unlike:
        tile_id = tile_at(snapshot.codes, lon, lat)
        rows = await searches.similar(snapshot, tile_id, wanted)
        return _page(request, snapshot, {"tile_id": tile_id}, rows, limit, offset)
    if not like or lon is not None or lat is not None:
        raise ServiceError(
            422, "Expected either lon and lat of a place, or tiles as like (and unlike)."
        )
    like, unlike = ([published_tile(snapshot.codes, one) for one in ids] for ids in (like, unlike))
    rows = await searches.like_examples(snapshot, like, unlike, wanted)
    return _page(request, snapshot, {"like": like, "unlike": unlike}, rows, limit, offset)


@router.post(
    "/similar",
    response_class=Response,
    responses={200: {"model": SimilarTiles}, **documented(413, 415, 422, 501)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                one: {"schema": {"type": "string", "format": "binary"}} for one in MEDIA_TYPES
            },
        }
    },
)
async def similar_to_image(
    request: Request, snapshot: Current, wanted: Wanted, limit: Limit = PAGE, offset: Offset = 0
) -> Response:
    """The tiles most like an image, which is the body; only where images are switched on."""
    if not request.app.state.images:
        raise ServiceError(501, "Images cannot be asked for here: start the service with --images.")
    with TemporaryDirectory(prefix="rshash-") as folder:
        path = Path(folder) / "image"
        await receive_image(request, path)
        try:
            code = await asyncio.to_thread(_code_of, request, snapshot, path)
            rows = await request.app.state.searches.like_codes(snapshot, code, wanted)
        except QueryError as error:
            raise ServiceError(422, str(error).replace(str(path), "The image")) from error
    return _page(request, snapshot, {"image": True}, rows, limit, offset)


def _code_of(request: Request, snapshot: Snapshot, path: Path) -> Any:
    from data_catalog.query_images import code_of_image

    return code_of_image(request.app.state.catalogue, snapshot.codes.model_id, path)


def _page(
    request: Request,
    snapshot: Snapshot,
    query: dict[str, Any],
    rows: Rows,
    limit: int,
    offset: int,
) -> Response:
    if (same := unchanged(request, snapshot)) is not None:
        return same
    end = offset + limit
    content = {
        "query": query,
        "model_id": snapshot.codes.model_id,
        "bits": snapshot.codes.bits,
        "version": snapshot.version,
        "found": len(rows),
        "offset": offset,
        "results": [orjson.Fragment(row) for row in rows[offset:end]],
        "next": _next(request, end) if end < len(rows) else None,
    }
    return answer(orjson.dumps(content), snapshot)


def _next(request: Request, offset: int) -> str:
    asked = parse_qsl(request.url.query, keep_blank_values=True)
    pairs = [(name, value) for name, value in asked if name != "offset"]
    return "?" + urlencode([*pairs, ("offset", str(offset))])
