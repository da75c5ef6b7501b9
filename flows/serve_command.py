"""The command that answers queries over HTTP until it is interrupted."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.service.app import make_app
from data_catalog.service.problems import problem
from flows.query_parameters import ServeParameters
from rshash.errors import RshashError

SECONDS_BETWEEN_LOOKS = 2.0

NOTHING_YET = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="refresh" content="10"><title>rshash</title>
<p style="font: 16px sans-serif; margin: 3em">No codes are published yet: the first night makes
some, and then the map appears here by itself.</p></html>
"""


def serve(parameters: ServeParameters) -> None:
    """Serves a catalogue.

    Raises:
        CatalogueError: There is no catalogue, or no such model.
        QueryError: The model has no published codes, or the address cannot be listened on.
    """
    listener = _listen(parameters.host, parameters.port)
    # Ctrl+C ends it in good order: there is nothing to go on with.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        app = _waited_for(parameters, listener) if parameters.wait else _app(parameters)
        name = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
        address = f"http://{name}:{parameters.port}/"
        print(f"Serving {parameters.catalog} at {address} (Ctrl+C ends it)", flush=True)
        _server(app).run(sockets=[listener])


def _app(parameters: ServeParameters) -> FastAPI:
    return make_app(Catalogue.open(parameters.catalog), parameters.model, parameters.images)


def _server(app: Any) -> uvicorn.Server:
    # A proxy in front says whom the request came from; a line per request is the proxy's matter.
    return uvicorn.Server(
        uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=10)
    )


def _waited_for(parameters: ServeParameters, listener: socket.socket) -> FastAPI:
    """The application, once there are codes to serve; till then a page says that there are none."""
    waiting, found, said = _server(_nothing_yet), list[FastAPI](), ""

    def look() -> None:
        nonlocal said
        while not found:
            try:
                found.append(_app(parameters))
            except (RshashError, OSError, ValueError) as error:
                if str(error) != said:
                    said = str(error)
                    print(f"Waiting: {said}", file=sys.stderr, flush=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        waiting.should_exit = True

    threading.Thread(target=look, name="look for codes", daemon=True).start()
    # uvicorn closes what it listened on.
    waiting.run(sockets=[listener.dup()])
    if not found:
        sys.exit(0)
    return found[0]


async def _nothing_yet(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    headers = {"Retry-After": "10"}
    answer = problem(503, "No codes are published yet: ask again later.", headers)
    if "text/html" in Headers(scope=scope).get("accept", ""):
        answer = HTMLResponse(NOTHING_YET, 503, headers)
    await answer(scope, receive, send)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise QueryError(
            f"Cannot listen at {host}, port {port} ({error.strerror}): "
            "give another --host or --port, or end what listens there."
        ) from None
    return listener
