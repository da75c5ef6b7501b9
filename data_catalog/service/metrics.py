"""What the service counts, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = {"GET", "POST", "HEAD", "OPTIONS"}
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one service.

    Attributes:
        reloads: Versions that were swapped in.
        reload_failures: Looks for a new version that failed.
        cache_hits: Queries that were answered from memory.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Histogram(
            "rshash_request_seconds",
            "Time to the end of an answer.",
            ["method", "route", "status"],
            registry=self._registry,
            buckets=BUCKETS,
        )
        self.reloads = self._counter("rshash_reloads", "Versions that were swapped in.")
        self.reload_failures = self._counter(
            "rshash_reload_failures", "Looks for a new version that failed."
        )
        self.cache_hits = self._counter("rshash_cache_hits", "Queries answered from memory.")
        self._tiles = Gauge("rshash_tiles", "Tiles with a code.", registry=self._registry)
        self._version = Gauge(
            "rshash_version", "The version served is 1.", ["version"], registry=self._registry
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def serves(self, version: str, tiles: int) -> None:
        """Notes the version that is served from now on, and its number of tiles."""
        self._version.clear()
        self._version.labels(version).set(1)
        self._tiles.set(tiles)

    def response(self) -> Response:
        """All counters in the text format of Prometheus."""
        headers = {"Cache-Control": "no-store", "Content-Type": MEDIA_TYPE}
        return Response(generate_latest(self._registry), headers=headers)


class CountRequests:
    """Middleware that times every request by its route, not by its address: those are endless."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and notes how long its answer took."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            labels = self._metrics.requests.labels(method, route, status)
            labels.observe(time.perf_counter() - started)
