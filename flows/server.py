"""A real Prefect server of one's own, for as long as a demo or a test lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rshash.errors import RshashError

START_SECONDS = 90.0


@contextmanager
def prefect_server(home: Path, preferred_port: int = 0) -> Iterator[str]:
    """Runs a Prefect server on loopback; the environment names it to what is imported or started.

    Args:
        home: Folder of the server's database and log.
        preferred_port: Port to listen on where it is free; else any.

    Yields:
        The address of its UI.

    Raises:
        RshashError: The server did not answer in time; the message names its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{_free_port(preferred_port)}"
    settings = {
        "PREFECT_HOME": str(home.absolute()),
        "PREFECT_API_URL": f"{address}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1]]
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_healthy(server, address, log)
        yield address
    finally:
        _send_what_is_queued()
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _send_what_is_queued() -> None:
    # Prefect sends logs and events in the background, and would go on trying without a server.
    if "prefect" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        for worker in (APILogWorker, EventsWorker):
            worker.drain_all(timeout=10)


def _wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RshashError(f"The Prefect server did not start at {address}: its log is {log}.")


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RshashError("No port is free on 127.0.0.1.")
