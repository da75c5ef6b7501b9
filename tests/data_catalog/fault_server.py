"""A folder over HTTP from a server that misbehaves on purpose, the same way in every run.

It answers whatever host it is asked for, so it can be the ``http_proxy`` of a process and stand for
hosts of the outside world; with ``upstream`` it passes on to another server what is no file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

CONTROL = "/-/"


@dataclass(frozen=True)
class Fault:
    """What is wrong with the answers to some requests.

    Attributes:
        pattern: Of paths, as in a shell.
        kind: ``latency``, ``reset``, ``truncated`` (half the body), ``status``, or ``line``: bodies
            share a line of so many bytes a second, and wait for it as for ``latency``.
        probability: Of a request to be hit.
        at_most: How often one path is hit, so that retries can mend it; None for ever.
        after: Requests of a path that are answered well before any is hit.
        status: For kind ``status``.
        retry_after: Seconds, as the header tells them; None for no header.
        seconds: For kinds ``latency`` and ``line``.
        rate: For kind ``line``: bytes a second.
    """

    pattern: str
    kind: str
    probability: float = 1.0
    at_most: int | None = 2
    after: int = 0
    status: int = 503
    retry_after: int | None = None
    seconds: float = 0.02
    rate: float = 0.0


@dataclass(frozen=True)
class Signing:
    """Storage that wants a token: 403 without one, or with one that has served its time.

    Attributes:
        pattern: Of the paths that are protected.
        uses: Requests that the first token is good for, though it is said to be good for an hour;
            later ones are.
    """

    pattern: str
    uses: int


@dataclass(frozen=True)
class Request:
    """One request that was made, and how it was answered.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        path: Without host and query.
        bytes: The range asked for.
        outcome: The status, or the kind of the fault.
    """

    method: str
    path: str
    bytes: str
    outcome: str


class FaultServer:
    """A running server.

    Attributes:
        address: Such as ``http://127.0.0.1:41234``.
    """

    def __init__(self, address: str):
        self.address = address
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def misbehave(self, *faults: Fault, seed: int = 0) -> None:
        """Sets the faults from now on; none to behave well. Forgets all requests."""
        body = {"faults": [asdict(fault) for fault in faults], "seed": seed}
        self._open(f"{self.address}{CONTROL}faults", json.dumps(body).encode(), 60).close()

    def requests(self, pattern: str = "*") -> list[Request]:
        """The requests since faults were set, in order, of the paths that match."""
        with self._open(f"{self.address}{CONTROL}requests", timeout=60) as answer:
            made = [Request(*row) for row in json.load(answer)]
        return [request for request in made if fnmatch(request.path, pattern)]

    def tokens(self) -> list[str]:
        """The secrets that were handed out."""
        with self._open(f"{self.address}{CONTROL}tokens", timeout=60) as answer:
            return list(json.load(answer))


@contextmanager
def fault_server(
    folder: Path,
    faults: Iterable[Fault] = (),
    *,
    seed: int = 0,
    signing: Signing | None = None,
    upstream: str = "",
) -> Iterator[FaultServer]:
    """Serves a folder while the context lasts, from a process that ends with this one."""
    settings = {
        "folder": str(folder),
        "signing": asdict(signing) if signing else None,
        "upstream": upstream,
    }
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-I", __file__, str(listener.fileno()), json.dumps(settings)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    assert process.stdin is not None
    try:
        # Requests wait in the socket's queue until the server has started.
        server = FaultServer(address)
        server.misbehave(*faults, seed=seed)
        yield server
    finally:
        process.stdin.close()
        process.wait(60)


class _Server:
    def __init__(self, folder: str, signing: dict[str, Any] | None, upstream: str):
        self.folder, self.upstream = Path(folder), upstream
        self.signing = Signing(**signing) if signing else None
        self.tokens: dict[str, int] = {}
        self.misbehave([], 0)

    def misbehave(self, faults: list[dict[str, Any]], seed: int) -> None:
        self.faults = [Fault(**fault) for fault in faults]
        self.seed, self.log, self.free_at = seed, list[tuple[str, str, str, str]](), 0.0
        self.seen, self.hit = Counter[tuple[int, str]](), Counter[tuple[int, str]]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(method, target, headers, body, writer):
                    break
        writer.close()

    async def _answer(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answers one request; returns whether the connection is to be kept."""
        url = urlsplit(target)
        if url.path.startswith(CONTROL):
            _write(writer, 200, self._control(url.path.removeprefix(CONTROL), body))
            return True
        fault = self._fault(url.path)
        extra: dict[str, str] = {}
        if fault is not None and fault.kind in ("latency", "line"):
            await asyncio.sleep(fault.seconds)
        if fault is not None and fault.kind == "status":
            status, content = fault.status, b"busy"
            if fault.retry_after is not None:
                extra["Retry-After"] = str(fault.retry_after)
        else:
            status, content, extra = await self._content(method, url, target, headers, body)
        if fault is not None and fault.kind == "line":
            await self._pass_on(len(content) / fault.rate)
        outcome = fault.kind if fault and fault.kind != "status" else str(status)
        self.log.append((method, url.path, headers.get("range", ""), outcome))
        if outcome == "reset":
            writer.transport.abort()
            return False
        sent = b"" if method == "HEAD" else content
        if outcome == "truncated":
            sent = sent[: len(sent) // 2]
        _write(writer, status, sent, extra | {"Content-Length": str(len(content))})
        await writer.drain()
        return outcome != "truncated"

    async def _pass_on(self, seconds: float) -> None:
        """Waits until what was asked for before, and then so much more, has gone over the line."""
        now = asyncio.get_running_loop().time()
        self.free_at = max(self.free_at, now) + seconds
        await asyncio.sleep(self.free_at - now)

    def _fault(self, path: str) -> Fault | None:
        for number, fault in enumerate(self.faults):
            if not fnmatch(path, fault.pattern):
                continue
            key = number, path
            self.seen[key] += 1
            chance = random.Random(f"{self.seed} {number} {path} {self.seen[key]}").random()
            spent = fault.at_most is not None and self.hit[key] >= fault.at_most
            if self.seen[key] > fault.after and not spent and chance < fault.probability:
                self.hit[key] += 1
                return fault
        return None

    async def _content(
        self, method: str, url: Any, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if url.path.startswith("/token/"):
            return 200, self._token(), {}
        path = self.folder / unquote(url.path).lstrip("/")
        if self.signing and fnmatch(url.path, self.signing.pattern):
            token = parse_qs(url.query).get("sig", [""])[0]
            if self.tokens.get(token, 0) <= 0:
                return 403, b"the token has expired", {}
            self.tokens[token] -= 1
        if path.is_file():
            return _part(path, headers.get("range", ""))
        if self.upstream:
            return await asyncio.to_thread(_forward, self.upstream, method, target, headers, body)
        return 404, b"", {}

    def _token(self) -> bytes:
        assert self.signing is not None
        token = random.Random(f"{self.seed} {len(self.tokens)}").randbytes(12).hex()
        self.tokens[token] = sys.maxsize if self.tokens else self.signing.uses
        expiry = datetime.now(UTC) + timedelta(hours=1)
        content = {"msft:expiry": expiry.isoformat(), "token": f"se={expiry:%Y}&sig={token}"}
        return json.dumps(content).encode()

    def _control(self, name: str, body: bytes) -> bytes:
        if name == "faults":
            self.misbehave(**json.loads(body))
        return json.dumps(list(self.tokens) if name == "tokens" else self.log).encode()


def _write(
    writer: asyncio.StreamWriter, status: int, content: bytes, extra: dict[str, str] | None = None
) -> None:
    headers = {"Content-Length": str(len(content)), "Accept-Ranges": "bytes", **(extra or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + content)


def _part(path: Path, wanted: str) -> tuple[int, bytes, dict[str, str]]:
    if not wanted:
        return 200, path.read_bytes(), {}
    first, last = wanted.removeprefix("bytes=").split("-")
    size = path.stat().st_size
    start, stop = int(first), min(int(last or size), size - 1) + 1
    if start >= size:
        return 416, b"", {"Content-Range": f"bytes */{size}"}
    with path.open("rb") as file:
        content = os.pread(file.fileno(), stop - start, start)
    return 206, content, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}


def _forward(
    upstream: str, method: str, target: str, headers: dict[str, str], body: bytes
) -> tuple[int, bytes, dict[str, str]]:
    kept = {k: v for k, v in headers.items() if k in ("host", "content-type", "accept")}
    request = urllib.request.Request(f"{upstream}{target}", body or None, kept, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read(), {"Content-Type": answer.headers["Content-Type"]}
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {}


async def _run(descriptor: int, settings: dict[str, Any]) -> None:
    server = _Server(**settings)
    listener = socket.socket(fileno=descriptor)
    async with await asyncio.start_server(server.serve, sock=listener) as running:
        await running.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_run(int(sys.argv[1]), json.loads(sys.argv[2])))
