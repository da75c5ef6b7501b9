"""What routes share: the version to answer from, and answers that clients can keep."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response

from data_catalog.service.snapshots import Snapshot

REVALIDATE = "public, no-cache"
"""Kept by clients, who ask whether it is still good: that costs a 304."""

JSON = "application/json"


async def current_snapshot(request: Request) -> Snapshot:
    """The version that a request is answered from, to its end."""
    snapshot: Snapshot = request.app.state.live.current
    return snapshot


Current = Annotated[Snapshot, Depends(current_snapshot)]


def unchanged(request: Request, snapshot: Snapshot) -> Response | None:
    """The answer 304 to a client that has the current version already."""
    known = request.headers.get("if-none-match")
    if known is None:
        return None
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    if tags.isdisjoint({"*", snapshot.etag.removeprefix("W/")}):
        return None
    return Response(status_code=304, headers=_headers(snapshot, REVALIDATE))


def answer(
    content: bytes,
    snapshot: Snapshot,
    media_type: str = JSON,
    cache_control: str = REVALIDATE,
) -> Response:
    """An answer with its entity tag."""
    return Response(content, headers=_headers(snapshot, cache_control), media_type=media_type)


def _headers(snapshot: Snapshot, cache_control: str) -> dict[str, str]:
    return {"ETag": snapshot.etag, "Cache-Control": cache_control}
