"""A server of S3 in a process of its own, on loopback."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

from free_ports import free_port

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


def serve(port: int) -> None:
    """Serves until it is ended, one request at a time: moto checks a condition, then writes."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    app = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", port, app, threaded=False, request_handler=MotoRequestHandler)


@contextmanager
def object_server() -> Iterator[str]:
    """Address of a server, for as long as it is used."""
    port = free_port()
    # Nothing listens on a metadata service's address: credentials come from the environment alone.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    process = subprocess.Popen(
        [sys.executable, __file__, str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def read_only(server: str) -> Iterator[str]:
    """Address of a way to a server that lets nobody change anything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            request = urllib.request.Request(f"{server}{self.path}", method=self.command)
            for name in ("Authorization", "Range", "If-Match", "If-None-Match"):
                if name in self.headers:
                    request.add_header(name, self.headers[name])
            try:
                with urllib.request.urlopen(request) as found:
                    self.answer(found.status, found.headers.items(), found.read())
            except urllib.error.HTTPError as error:
                self.answer(error.code, [], error.read())

        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(403, [], b"<Error><Code>AccessDenied</Code></Error>")

        def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            sent = {"content-length": str(len(body))}
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    sent[name.lower()] = value
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_HEAD = forward  # noqa: N815
        do_PUT = do_POST = do_DELETE = refuse  # noqa: N815

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()


def environment(server: str, cache: str) -> dict[str, str]:
    """The variables with which catalogues on a server are opened."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "XDG_CACHE_HOME": cache,
    }


def new_bucket(server: str) -> str:
    """Name of a new, empty bucket."""
    name = f"bucket-{uuid4().hex[:8]}"
    urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT")).close()
    return name


if __name__ == "__main__":
    serve(int(sys.argv[1]))
