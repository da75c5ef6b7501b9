"""Routes that tell of the service itself."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from data_catalog.sensors import get_sensor
from data_catalog.service.answers import CollectionDescription
from data_catalog.service.conditional import Current, answer, unchanged
from data_catalog.service.problems import documented

router = APIRouter(tags=["Service"])


@router.get(
    "/codes",
    response_class=Response,
    responses={200: {"model": CollectionDescription}, **documented()},
)
async def codes(request: Request, snapshot: Current) -> Response:
    """What is served: the model, its codes, and whom to credit."""
    if (same := unchanged(request, snapshot)) is not None:
        return same
    codes = snapshot.codes
    content = {
        "model_id": codes.model_id,
        "bits": codes.bits,
        "sensor": codes.sensor,
        "sensor_title": get_sensor(codes.sensor).title,
        "version": snapshot.version,
        "tiles": len(codes),
        "tile_size": codes.tile_size,
        "labels": snapshot.label_count,
        "bbox": snapshot.bbox,
        "period": snapshot.period,
        "attribution": snapshot.attribution,
        "images": request.app.state.images,
    }
    return answer(orjson.dumps(content), snapshot)


@router.get("/healthz", responses=documented())
async def healthz(snapshot: Current) -> dict[str, str | int]:
    """Whether the service answers, and from which version."""
    return {"status": "ok", "version": snapshot.version, "tiles": len(snapshot.codes)}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented()},
)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    response: Response = request.app.state.metrics.response()
    return response
