"""Byte ranges of remote files, in spite of what servers and networks do to them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from data_catalog.errors import ReadError, SourceError
from data_catalog.polite import turn
from data_catalog.profiles import forget_tokens, sign
from data_catalog.redaction import redacted

_LOG = logging.getLogger(__name__)

CONNECTIONS = 64
"""Requests in flight at once, in a process, to all sources together."""

RETRY_DELAYS_S = (0.25, 1.0, 3.0)
LONGEST_WAIT_S = 120.0
"""Longest wait that a server's Retry-After is followed for."""

SIGNED_FOR_S = 600.0
"""Tokens live under an hour."""

WHOLE_FILE_BYTES = 64 * 1024**2
"""Largest file that is fetched whole, again for every range, where its server knows no ranges."""

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=60.0)
GAP_BYTES = 16 * 1024
"""Ranges that lie no further apart are asked for as one: it costs less than another request."""

_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {401, 403}
_PASSING_FAULTS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


def is_remote(href: str) -> bool:
    """Whether an address is one that byte ranges are asked for over HTTP."""
    return urlsplit(href).scheme in ("http", "https")


class _RefusedError(Exception):
    """The server takes the address for one without, or with an outdated, signature."""


class _PassingError(Exception):
    """A fault that a retry may mend."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


@dataclass
class RangeReader:
    """Reads byte ranges of one file, local or behind HTTP; belongs to one event loop.

    It is what async-tiff takes as a file (the protocols GetRangeAsync and GetRangesAsync of
    obspec); the path it is given is of no meaning.

    Attributes:
        href: The file's unsigned address, or its path.
        profile: Of the source catalogue: says how to sign.
        session: Asks; not needed for local files.
    """

    href: str
    profile: str
    session: aiohttp.ClientSession | None
    _head: bytes = field(default=b"", repr=False)
    _signed: tuple[float, str] | None = field(default=None, repr=False)
    _refused: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # aiohttp finds proxies too, but looks at the disk for passwords at every request.
        parts = urlsplit(self.href)
        bypassed = not parts.hostname or proxy_bypass(parts.hostname)
        self._proxy = None if bypassed else getproxies().get(parts.scheme)

    async def read_head(self, length: int) -> bytes:
        """The file's first bytes, which are remembered."""
        self._head = await self.get_range_async("", start=0, end=length)
        return self._head

    async def get_range_async(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> bytes:
        """One range; shorter than asked for only where the file ends."""
        stop = end if end is not None else start + (length or 0)
        if stop <= len(self._head):
            return self._head[start:stop]
        if self.session is None:
            return await asyncio.to_thread(_read_local, self.href, start, stop)
        return await self._get_patiently(start, stop)

    async def get_ranges_async(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> list[bytes]:
        """Several ranges, in the order asked for; neighbouring ones in one request."""
        stops = ends or [s + n for s, n in zip(starts, lengths or [], strict=True)]
        ranges = list(zip(starts, stops, strict=True))
        spans = _joined(ranges)
        parts = await asyncio.gather(
            *(self.get_range_async(path, start=start, end=stop) for start, stop in spans)
        )
        found = []
        for start, stop in ranges:
            number = next(n for n, (first, last) in enumerate(spans) if first <= start < last + 1)
            first = spans[number][0]
            piece = parts[number][start - first : stop - first]
            if len(piece) != stop - start:
                raise ReadError(f"the file ends at byte {first + len(parts[number])}, too early")
            found.append(piece)
        return found

    async def _get_patiently(self, start: int, stop: int) -> bytes:
        renewed = False
        for delay in (*RETRY_DELAYS_S, None):
            try:
                return await self._get(start, stop)
            except _RefusedError as error:
                if renewed:
                    raise ReadError(str(error)) from None
                renewed, self._signed = True, None
            except _PassingError as error:
                if delay is None:
                    raise ReadError(str(error)) from None
                wait = max(delay, error.wait)
                _LOG.info("%s: %s; again in %.1f s", redacted(self.href), error, wait)
                await asyncio.sleep(wait)
        raise ReadError("refused, and the server had faults when it was asked again")

    async def _get(self, start: int, stop: int) -> bytes:
        assert self.session is not None
        address = await self._address()
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        try:
            # What is written with escapes, as signatures are, must stay as it is.
            url = URL(address, encoded=address.isascii() and " " not in address)
            async with (
                turn(self.href, self.profile),
                self.session.get(url, headers=headers, proxy=self._proxy) as response,
            ):
                _check_status(response)
                if response.status == 200 and (response.content_length or 0) > WHOLE_FILE_BYTES:
                    raise ReadError("its server gives no byte ranges, and it is too large to fetch")
                body = await response.read()
        except _RefusedError:
            self._refused = address
            raise
        except _PASSING_FAULTS as error:
            raise _PassingError(redacted(str(error)) or type(error).__name__) from None
        if response.status == 200:  # the server knows no ranges
            return body[start:stop]
        if len(body) != _promised(response, start, stop):
            raise _PassingError(f"the answer has {len(body)} bytes in place of {stop - start}")
        return body

    async def _address(self) -> str:
        now = time.monotonic()
        if self._signed is None or now - self._signed[0] > SIGNED_FOR_S:
            self._signed = now, await asyncio.to_thread(self._sign)
        return self._signed[1]

    def _sign(self) -> str:
        try:
            address = sign(self.href, self.profile)
            if address == self._refused:
                # A token that was good when it was made may have run out since.
                forget_tokens()
                address = sign(self.href, self.profile)
        except SourceError as error:
            raise ReadError(str(error)) from None
        return address


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status in (200, 206):
        return
    cause = f"HTTP status {response.status} {response.reason or ''}".strip()
    if response.status in _REFUSED:
        raise _RefusedError(cause)
    if response.status in _PASSING_STATUSES:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        if wait <= LONGEST_WAIT_S:
            raise _PassingError(cause, wait)
        raise ReadError(f"{cause}, and asks to wait for {wait:.0f} s")
    raise ReadError(cause)


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks to wait; 0 where there is none."""
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _promised(response: aiohttp.ClientResponse, start: int, stop: int) -> int:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return min(stop, int(total)) - start if total.isdigit() else stop - start


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if spans and start - spans[-1][1] <= GAP_BYTES:
            spans[-1] = spans[-1][0], max(spans[-1][1], stop)
        else:
            spans.append((start, stop))
    return spans


def _read_local(path: str, start: int, stop: int) -> bytes:
    try:
        local = unquote(urlsplit(path).path) if path.startswith("file://") else path
        with Path(local).open("rb") as file:
            return os.pread(file.fileno(), stop - start, start)
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from None
