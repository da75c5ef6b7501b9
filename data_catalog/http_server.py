"""Serves a folder over HTTP with range requests, so that it can stand for a remote catalogue.

The server is a process of its own: GDAL holds the interpreter's lock while it opens a remote file,
so a server in a thread of the reading process would wait for its own reader.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.errors import SourceError

_START_SECONDS = 60.0
_END_SECONDS = 5.0


@contextmanager
def serve_folder(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves the files of a folder on the loopback address while the context lasts.

    Ranges are answered with status 206, as readers of cloud-optimised files need.

    Args:
        folder: What to serve.
        port: TCP port; 0 takes a free one.

    Yields:
        The base address, such as ``http://127.0.0.1:41234``, without a slash at its end.

    Raises:
        SourceError: The folder does not exist, or the port cannot be had.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder, so it cannot be served: give an existing one.")
    with _listen(port) as listener:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", __name__, str(folder), str(listener.fileno())]
        # The open pipe tells the server that we live: it ends when we do, however that happens.
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
    try:
        _wait_until_started(server, base, folder)
        yield base
    finally:
        server.terminate()
        try:
            server.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdin:
            server.stdin.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise SourceError(
            f"Port {port} cannot be had on 127.0.0.1 ({error}): take another, or 0 for a free one."
        ) from error
    return listener


def _wait_until_started(server: subprocess.Popen[bytes], base: str, folder: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            direct.open(base, timeout=_START_SECONDS).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SourceError(
        f"The server of {folder} did not start (exit status {server.poll()}): see its messages."
    )


def _serve(folder: str, descriptor: int) -> None:
    """Runs the server in this process, on a socket that already listens."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    uvicorn.run(
        Starlette(routes=[Mount("/", StaticFiles(directory=folder))]),
        fd=descriptor,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
