"""The application: what is answered where, read-only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from cachetools import LRUCache
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles

from data_catalog.catalogue import Catalogue
from data_catalog.service import problems, similar_routes, status_routes, tile_routes
from data_catalog.service.limits import AnswerHead, GuardRequests
from data_catalog.service.metrics import CountRequests, Metrics
from data_catalog.service.searches import Searches
from data_catalog.service.snapshots import LiveCatalogue

EXPLORER = Path(__file__).parent / "explorer"
POLL_SECONDS = 5.0
PICTURE_BYTES = 64 * 1024 * 1024
"""Of pictures that are kept in memory."""


def make_app(
    catalogue: Catalogue,
    model_id: str | None = None,
    images: bool = False,
    poll_seconds: float = POLL_SECONDS,
) -> FastAPI:
    """Makes the service of a catalogue, whose codes are opened at once.

    Args:
        catalogue: The catalogue; nothing is ever written to it.
        model_id: The model; None for the one in use, whichever that will be.
        images: Whether images can be asked for, which needs the model's network and thus torch.
        poll_seconds: How often to look for a new version.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The model has no published codes.
    """
    metrics = Metrics()
    live = LiveCatalogue(catalogue, model_id, poll_seconds, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(live.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    app = FastAPI(
        title="rshash",
        summary="Which places look like this one?",
        version=version("rshash"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        # They load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.catalogue, app.state.live, app.state.metrics = catalogue, live, metrics
    app.state.searches, app.state.images = Searches(metrics), images
    app.state.kept_pictures = LRUCache(PICTURE_BYTES, getsizeof=len)
    problems.install(app)
    for routes in (tile_routes, similar_routes, status_routes):
        app.include_router(routes.router)
    app.mount("/", StaticFiles(directory=EXPLORER, html=True), name="explorer")
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
    app.add_middleware(GuardRequests)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET"],
        allow_headers=["If-None-Match"],
        expose_headers=["ETag"],
    )
    app.add_middleware(AnswerHead)
    app.add_middleware(CountRequests, metrics=metrics)
    return app
