"""Middleware that bounds what a client may send, says what a browser may do, and answers HEAD."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_catalog.service.problems import SECURITY_HEADERS, problem

LONGEST_ADDRESS = 4_000


class GuardRequests:
    """Refuses addresses without end, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on unless its address is too long."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                # Kept files of an older release would not fit new ones.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        length = len(scope["raw_path"]) + len(scope["query_string"])
        if length > LONGEST_ADDRESS:
            refusal = problem(
                414, f"The address has {length} characters: expected at most {LONGEST_ADDRESS}."
            )
            await refusal(scope, receive, secured)
            return
        await self._app(scope, receive, secured)


class AnswerHead:
    """Answers HEAD as GET, without the content."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        asked = {**scope, "method": "GET"}
        await self._app(asked, receive, without_content)
        scope["route"] = asked.get("route")
