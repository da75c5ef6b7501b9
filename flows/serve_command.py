"""The command that answers queries over HTTP until it is interrupted."""

from __future__ import annotations

import uvicorn

from data_catalog.catalogue import Catalogue
from data_catalog.service.app import make_app
from flows.query_parameters import ServeParameters


def serve(parameters: ServeParameters) -> None:
    """Serves a catalogue.

    Raises:
        CatalogueError: There is no catalogue, or no such model.
        QueryError: The model has no published codes.
    """
    app = make_app(Catalogue.open(parameters.catalog), parameters.model, parameters.images)
    name = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    print(f"Serving {parameters.catalog} at http://{name}:{parameters.port}/ (Ctrl+C ends it)")
    # A proxy in front says whom the request came from; a line per request is the proxy's matter.
    uvicorn.run(
        app,
        host=parameters.host,
        port=parameters.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=10,
    )
