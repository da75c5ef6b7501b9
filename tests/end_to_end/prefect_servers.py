"""A Prefect server that can be killed and started again, on SQLite or PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from free_ports import free_port
from prefect.settings import PREFECT_API_URL, temporary_settings
from stac_api import postgresql_programs

START_SECONDS = 240.0


class PrefectServer:
    """A server on a port of its own. Make one with ``prefect_server_of_its_own``.

    Attributes:
        environment: For processes that report to it.
    """

    def __init__(self, home: Path, database: dict[str, str] | None) -> None:
        self._port = str(free_port())
        self._home = home
        self._health = f"http://127.0.0.1:{self._port}/api/health"
        self.environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        if database is not None:
            address = _dsn(database, "postgresql+asyncpg")
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address

    def start(self) -> None:
        """Starts it, again too, and waits until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start"]
        command += ["--host", "127.0.0.1", "--port", self._port]
        with (self._home / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self._health, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return (self._home / "server.log").read_text()


@contextmanager
def prefect_server_of_its_own(
    home: Path, database: dict[str, str] | None = None
) -> Iterator[PrefectServer]:
    """Runs a server, which this process reports to too.

    Args:
        home: Its folder, with the database if that is SQLite.
        database: What clients need to connect to PostgreSQL, as variables of the environment.
    """
    home.mkdir(parents=True)
    server = PrefectServer(home, database)
    server.start()
    try:
        with temporary_settings({PREFECT_API_URL: server.environment["PREFECT_API_URL"]}):
            yield server
    finally:
        server.kill()


@contextmanager
def restarted_postgresql(connection: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Yields what ends a running cluster as a crash would, and starts it again on its port."""
    programs = postgresql_programs()
    assert programs is not None
    with psycopg.connect(_dsn(connection, "postgresql")) as client:
        [data] = client.execute("SHOW data_directory").fetchone() or [""]

    def control(*arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        command = [programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", *arguments]
        subprocess.run(command, check=True, user=user, cwd=data, stdout=subprocess.DEVNULL)

    try:
        yield lambda: control("restart", "-t", "120", "-l", str(Path(data, "restarted.log")))
    finally:
        control("stop")


def _dsn(connection: dict[str, str], scheme: str) -> str:
    known = {name.removeprefix("PG").lower(): value for name, value in connection.items()}
    place = f"{known['host']}:{known['port']}/{known['database']}"
    return f"{scheme}://{known['user']}:{known['password']}@{place}"
