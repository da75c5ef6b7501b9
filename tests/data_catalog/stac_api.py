"""A real STAC API on the loopback address: stac-fastapi on PgSTAC in a PostgreSQL of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import requests
from free_ports import free_port
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods
from pypgstac.migrate import Migrate

START_SECONDS, END_SECONDS = 60.0, 10.0


def postgresql_programs() -> Path | None:
    """Folder of the programs of the newest installed PostgreSQL that has PostGIS."""
    found = [
        folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if (folder / "initdb").exists()
        and Path("/usr/share/postgresql", folder.parent.name, "extension/postgis.control").exists()
    ]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def postgresql(programs: Path) -> Iterator[dict[str, str]]:
    """Runs an empty cluster in a folder of its own; yields what clients need to connect."""
    # PostgreSQL refuses to run as root, and its user has to get into the folder.
    user = "postgres" if os.geteuid() == 0 else None
    as_user: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    password = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if user:
            shutil.chown(folder, user, user)
            shutil.chown(folder / "password", user, user)
        command = [programs / "initdb", "-D", folder / "data", "-U", "stac"]
        command += ["--pwfile", folder / "password", "--auth=scram-sha-256", "--encoding=UTF8"]
        command += ["--locale=C", "--no-sync"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        port = free_port()
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "stac",
            "PGPASSWORD": password,
            "PGDATABASE": "postgres",
        }
        # -F: what a crash of the machine would lose is of no interest.
        command = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-F"]
        command += ["-h", "127.0.0.1", "-k", folder]
        log = folder / "postgresql.log"
        with _running(command, lambda: _answers(connection), log, signal.SIGINT, **as_user):
            yield connection


def load(
    connection: dict[str, str], collections: list[dict[str, Any]], items: list[dict[str, Any]]
) -> None:
    """Makes PgSTAC's tables and functions, and fills them."""
    # A migration leaves its connection without autocommit: what is loaded gets another.
    with PgstacDB(dsn=_dsn(connection)) as database:
        Migrate(database).run_migration()
    with PgstacDB(dsn=_dsn(connection)) as database:
        loader = Loader(database)
        loader.load_collections(iter(collections), Methods.insert)
        loader.load_items(iter(items), Methods.insert)


@contextmanager
def stac_api(connection: dict[str, str], takes_records: bool = False) -> Iterator[str]:
    """Runs the API over a loaded database; yields its address."""
    with tempfile.TemporaryDirectory(prefix="stac-api-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "uvicorn", "stac_fastapi.pgstac.app:create_app"]
        command += ["--factory", "--fd", str(descriptor)]
        log = Path(folder, "stac-api.log")
        transactions = {"ENABLE_TRANSACTIONS_EXTENSIONS": str(takes_records).upper()}
        environment = {**os.environ, **connection, **transactions}
        options = {"env": environment, "pass_fds": [descriptor]}
        with _running(command, lambda: _is_healthy(address), log, **options):
            yield address


@contextmanager
def _running(
    command: list[Any],
    is_ready: Callable[[], bool],
    log: Path,
    end: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[None]:
    with log.open("wb") as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            **options,
        )
    try:
        latest = time.monotonic() + START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > latest:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _dsn(connection: dict[str, str]) -> str:
    names = {"PGDATABASE": "dbname"}
    pairs = {names.get(k, k[2:].lower()): v for k, v in connection.items()}
    return " ".join(f"{key}={value}" for key, value in pairs.items())


def _answers(connection: dict[str, str]) -> bool:
    try:
        psycopg.connect(_dsn(connection), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _is_healthy(address: str) -> bool:
    try:
        return requests.get(f"{address}/_mgmt/health", timeout=2).ok
    except (requests.ConnectionError, requests.Timeout):
        return False
