"""A real Prefect server of one's own, for as long as a demo or a test lasts."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rshash.errors import RshashError

START_SECONDS = 300.0
"""A new PostgreSQL database takes its time to get its tables, and so does a busy machine."""


def server_settings(home: Path, address: str) -> dict[str, str]:
    """Prefect's settings, as variables of the environment, of a server and all its clients.

    Args:
        home: Folder of the database, if it is SQLite, and of what else Prefect keeps.
        address: Of the server's UI.
    """
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"{address}/api",
        **_past_proxies(address),
        # Relative: browsers on other machines find it too.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # On disk: a server that is started again would else refuse to renew the leases of the runs
        # under way, which ends them, and count ended ones for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
        # Areas may be outlines of countries, or tables of places.
        "PREFECT_SERVER_API_MAX_PARAMETER_SIZE": "0",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    }


def _past_proxies(address: str) -> dict[str, str]:
    here, known = urlsplit(address).hostname, os.environ.get("no_proxy", os.environ.get("NO_PROXY"))
    return dict.fromkeys(("no_proxy", "NO_PROXY"), f"{known},{here}" if known else str(here))


def own_address(host: str, port: int) -> str:
    """The address at which this machine reaches what listens on a host and a port."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"


def check_port(host: str, port: int, option: str) -> None:
    """Refuses a port that cannot be listened on.

    Raises:
        RshashError: It cannot; the message names the option that sets it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RshashError(
                f"Cannot listen at {host}, port {port} ({error.strerror}): end what listens there, "
                f"or give another {option}."
            ) from None


@contextmanager
def prefect_server(home: Path, preferred_port: int | None = None) -> Iterator[str]:
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
    settings = server_settings(home.absolute(), address)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", address.rsplit(":", 1)[1]]
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_healthy(server, address, log)
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


def is_refused(address: str) -> bool:
    """Whether certainly nothing listens at an address."""
    there = urlsplit(address)
    try:
        port = there.port or {"https": 443}.get(there.scheme, 80)
        socket.create_connection((there.hostname or "", port), 10).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def is_healthy(address: str) -> bool:
    """Whether a Prefect server answers at an address."""
    try:
        with urllib.request.urlopen(f"{address}/api/health", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Waits for a Prefect server that was just started.

    Raises:
        RshashError: It ended, or did not answer in time; the message names its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if is_healthy(address):
            return
        time.sleep(0.3)
    raise RshashError(f"The Prefect server did not start at {address}: its log is {log}.")


def _free_port(preferred: int | None) -> int:
    # Below the ports that connections are given: none takes it before the server does.
    others = random.SystemRandom().sample(range(10_000, 32_768), 100)
    for port in others if preferred is None else (preferred, *others):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RshashError("No port is free on 127.0.0.1.")
