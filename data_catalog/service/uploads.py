"""Images that clients send, bounded in bytes while they arrive."""

from __future__ import annotations

from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from data_catalog.service.problems import ServiceError

MEDIA_TYPES = ("image/tiff", "image/png")
LARGEST_BYTES = 16 * 1024 * 1024


async def receive_image(request: Request, path: Path) -> None:
    """Writes the body of a request to a file, no more of it than is allowed.

    Raises:
        ServiceError: It is too large, or of another media type.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        raise ServiceError(
            415,
            f"Expected the image itself as the body, as {', '.join(MEDIA_TYPES)}, "
            f"but found {media_type[:100] or 'no Content-Type'!r}.",
        )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LARGEST_BYTES:
        raise _too_large(int(declared))
    size = 0
    try:
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_BYTES:
                    raise _too_large(size)
                file.write(part)
    except ClientDisconnect:
        raise ServiceError(400, "The upload ended before all of it had arrived.") from None


def _too_large(size: int) -> ServiceError:
    return ServiceError(
        413,
        f"The body has {size:,} bytes or more: expected at most {LARGEST_BYTES:,}. "
        "Send a smaller image.",
    )
