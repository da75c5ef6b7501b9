"""The command that answers queries over HTTP until it is interrupted."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress

import uvicorn

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.service.app import make_app
from flows.query_parameters import ServeParameters


def serve(parameters: ServeParameters) -> None:
    """Serves a catalogue.

    Raises:
        CatalogueError: There is no catalogue, or no such model.
        QueryError: The model has no published codes, or the address cannot be listened on.
    """
    listener = _listen(parameters.host, parameters.port)
    app = make_app(Catalogue.open(parameters.catalog), parameters.model, parameters.images)
    name = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    print(f"Serving {parameters.catalog} at http://{name}:{parameters.port}/ (Ctrl+C ends it)")
    # A proxy in front says whom the request came from; a line per request is the proxy's matter.
    server = uvicorn.Server(
        uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=10)
    )
    # Ctrl+C ends it in good order: there is nothing to go on with.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


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
