"""Errors as problem details (RFC 9457): what was expected, what was found and what to do."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from data_catalog.errors import CatalogueError, QueryError
from rshash.errors import RshashError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Content too large",
    414: "Address too long",
    415: "Unsupported media type",
    422: "Request cannot be answered",
    500: "Internal error",
    501: "Not switched on",
    503: "Not available",
}

LONGEST_DETAIL = 600
"""Characters of what a client sent are not sent back without end."""


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Problem(BaseModel):
    """Problem details."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(
        examples=["Tile UTM1920-32N_0001_0001 has no published code: pick one that has."]
    )


class ServiceError(RshashError):
    """A request that cannot be answered.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A response that describes a problem."""
    if len(detail) > LONGEST_DETAIL:
        detail = detail[:LONGEST_DETAIL] + " …"
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    # Lone surrogates, which a client may send, are no UTF-8.
    text = detail.encode(errors="replace").decode()
    content = orjson.dumps({**body, "detail": text})
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(content, status, headers, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may end in these problems."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": TITLES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in (*statuses, 414, 503)
    }


def install(app: FastAPI) -> None:
    """Makes an application answer all its errors as problems."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RshashError, _ours)
    app.add_exception_handler(Exception, _unforeseen)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = (
        f"{fault['loc'][-1]}: {fault['msg']}, but found {str(fault.get('input'))[:100]!r}"
        for fault in error.errors()
    )
    return problem(422, "; ".join(faults) + ". See openapi.json for what is expected.")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path[:200]}: openapi.json lists what there is."
    elif error.status_code == 405:
        detail = f"{request.method} is not understood here: openapi.json lists what is."
    return problem(error.status_code, detail, dict(error.headers or {}))


async def _ours(_: Request, error: Exception) -> Response:
    if isinstance(error, ServiceError):
        return problem(error.status, str(error))
    if isinstance(error, CatalogueError):
        # Where files lie is for the log, not for clients.
        log.error("A request was not answered: %s", error)
        return problem(
            503,
            "What is published cannot be read: the service's log says which file, and what to do. "
            "Try again later.",
        )
    return problem(404 if isinstance(error, QueryError) else 422, str(error))


async def _unforeseen(_: Request, error: Exception) -> Response:
    # Made outside of all middleware.
    headers = {**SECURITY_HEADERS, "Access-Control-Allow-Origin": "*"}
    detail = "The service failed on this request; its log says why. Try again later."
    return problem(500, detail, headers)
