"""One process that runs it all on one machine: Prefect, its worker, the nights, the service."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from data_catalog import stac
from data_catalog.catalogue_address import is_in_bucket
from flows.server import (
    check_port,
    is_healthy,
    own_address,
    server_settings,
    wait_until_healthy,
)
from flows.supervisor import (
    MARK,
    Child,
    end_flow_runs,
    end_leftovers,
    interruptible,
)
from flows.up_parameters import UpParameters
from rshash.errors import RshashError

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_ROUNDS = 60.0
"""Between two looks for runs whose processes are gone, as no worker may have seen."""

SECONDS_FOR_RUNS = 10.0
"""Time for runs to tell the server that they were ended."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"

_OF_OTHER_SERVERS = ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_API_DATABASE_CONNECTION_URL")


def up(parameters: UpParameters) -> None:
    """Runs everything until it is interrupted.

    Raises:
        RshashError: Something is wrong with the parameters, it runs already, a port is taken, or
            the Prefect server does not start; the message names its log.
    """
    parameters = _absolute(parameters)
    with _alone(parameters), interruptible():
        _check(parameters)
        if parameters.port == parameters.service_port:
            raise RshashError("--port and --service-port are the same: give two.")
        if left := end_leftovers(parameters.home):
            print(f"Ended {left} processes that a killed `rshash up` had left behind.")
        check_port(parameters.host, parameters.port, "--port")
        check_port(parameters.service_host, parameters.service_port, "--service-port")
        _run(parameters)


def _check(parameters: UpParameters) -> None:
    from flows.checks import check_nightly

    if parameters.night is not None:
        check_nightly(parameters.night)


def _run(parameters: UpParameters) -> None:
    environment = _environment(parameters)
    os.environ.update(environment)  # Prefect reads its settings when it is imported.
    night = _next_night(parameters)
    server, worker, service = _children(parameters, environment)
    address = own_address(parameters.host, parameters.port)
    try:
        print("Starting the Prefect server …", flush=True)
        wait_until_healthy(server.start(), address, server.log)
        _set_up(parameters, environment)
        for child in (worker, service):
            child.start()
        _tell(parameters, night)
        _watch(parameters, [server, worker, service])
    finally:
        with suppress(OSError):  # Nobody may read any more what it says.
            print("Ending …", flush=True)
        end_flow_runs(parameters.home, SECONDS_FOR_RUNS)
        for child in (worker, service):
            child.end()
        with suppress(OSError):
            if is_healthy(address):
                _tell_of_orphans(parameters.home, pending=True)
        server.end()
        end_leftovers(parameters.home)


def _watch(parameters: UpParameters, children: list[Child]) -> None:
    _, worker, _ = children
    address = own_address(parameters.host, parameters.port)
    look = time.monotonic() + SECONDS_BETWEEN_ROUNDS
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for child in children:
            if (status := child.died()) is not None:
                print(
                    f"The {child.name} ended (status {status}): starting it again in "
                    f"{child.wait:.0f} s. Its log is {child.log}.",
                    flush=True,
                )
            if not child.is_due:
                continue
            if child is worker:
                if not is_healthy(address):
                    continue
                _tell_of_orphans(parameters.home, pending=True)
            child.start()
        if time.monotonic() > look and is_healthy(address):
            look = time.monotonic() + SECONDS_BETWEEN_ROUNDS
            _tell_of_orphans(parameters.home, pending=False)


def _tell_of_orphans(home: Path, *, pending: bool) -> None:
    from flows.deployments import crash_orphaned_runs, end_finished_runs

    try:
        end_finished_runs(home)
        names = crash_orphaned_runs(home, pending=pending)
    except Exception as error:  # The server may just have ended: the next round tells it.
        print(f"The server could not be told of ended runs ({error}).", file=sys.stderr)
        return
    if names:
        print(
            f"Runs that were cut off: {', '.join(names)}. Run them again, and they go on.",
            flush=True,
        )


def _set_up(parameters: UpParameters, environment: dict[str, str]) -> None:
    from flows.deployments import deploy

    _tell_of_orphans(parameters.home, pending=True)
    _tell_of_what_is_not_saved(parameters)
    print("Deploying the flows …", flush=True)
    deploy(parameters, environment, _gpus(environment))


def _tell_of_what_is_not_saved(parameters: UpParameters) -> None:
    """Says now what would fail at night; it may still be saved until then."""
    from flows.saved import SAVED, load

    for kind, given in (("area", parameters.area), ("source", parameters.source)):
        if given.startswith(SAVED):
            try:
                load(kind, given.removeprefix(SAVED))
            except RshashError as error:
                print(f"Nights would fail: {error}", flush=True)


def _gpus(environment: dict[str, str]) -> int:
    # In a process of its own: PyTorch would take memory here for good.
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    return int(done.stdout) if done.returncode == 0 else 0


def _children(parameters: UpParameters, environment: dict[str, str]) -> tuple[Child, Child, Child]:
    logs = parameters.home / "logs"
    prefect = [sys.executable, "-m", "prefect"]
    server = [*prefect, "server", "start", "--host", parameters.host]
    server += ["--port", str(parameters.port)]
    worker = [*prefect, "worker", "start", "--pool", "rshash", "--type", "process"]
    worker += ["--name", "rshash up", "--install-policy", "never"]
    service = [sys.executable, "-m", "flows", "serve", "--wait"]
    service += ["--catalog", parameters.catalog, "--host", parameters.service_host]
    service += ["--port", str(parameters.service_port)]
    if parameters.model is not None:
        service += ["--model", parameters.model]
    return (
        Child("Prefect server", server, environment, logs / "server.log"),
        Child("worker", worker, environment, logs / "worker.log"),
        Child("catalogue service", service, environment, logs / "service.log"),
    )


def _environment(parameters: UpParameters) -> dict[str, str]:
    kept = {name: v for name, v in os.environ.items() if name not in _OF_OTHER_SERVERS}
    own = {
        MARK: str(parameters.home),
        "RSHASH_CATALOG": parameters.catalog,
        "PYTHONUNBUFFERED": "1",
    }
    if password := os.environ.get(PASSWORD):
        own["PREFECT_API_AUTH_STRING"] = os.environ.get("PREFECT_API_AUTH_STRING") or password
    database = {}
    if parameters.database is not None:
        database["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = parameters.database
    address = own_address(parameters.host, parameters.port)
    return kept | server_settings(parameters.home / "prefect", address) | database | own


def _absolute(parameters: UpParameters) -> UpParameters:
    """The same with paths that hold wherever a process runs."""
    catalog = parameters.catalog
    if not is_in_bucket(catalog):
        catalog = str(Path(catalog).expanduser().absolute())
    home = parameters.home.expanduser().absolute()
    return parameters.model_copy(update={"catalog": catalog, "home": home})


@contextmanager
def _alone(parameters: UpParameters) -> Iterator[None]:
    """Keeps a second `rshash up` out of the same home."""
    home, told = parameters.home, parameters.home / "up.txt"
    with ExitStack() as held:
        try:
            held.enter_context(stac.locked(home / ".lock", wait=False))
        except BlockingIOError:
            raise RshashError(
                f"`rshash up` runs already with the home {home} ({told.read_text()}): end it "
                "first, or give another --home, --port and --service-port."
            ) from None
        told.write_text(f"process {os.getpid()}, {own_address(parameters.host, parameters.port)}")
        try:
            yield
        finally:
            told.unlink(missing_ok=True)


def _tell(parameters: UpParameters, night: str) -> None:
    address = own_address(parameters.host, parameters.port)
    lines = [
        f"Prefect UI:        {address}",
        f"Catalogue service: {own_address(parameters.service_host, parameters.service_port)} "
        f"({parameters.catalog})",
        f"Next night:        {night}",
        f"Logs:              {parameters.home / 'logs'}",
        f"From a shell:      export PREFECT_API_URL={address}/api",
        "Ctrl+C ends it all.",
    ]
    if parameters.host not in LOOPBACK and not os.environ.get(PASSWORD):
        lines[:0] = [
            f"Whoever reaches {parameters.host}:{parameters.port} can run code here: set "
            f"{PASSWORD} and PREFECT_API_AUTH_STRING."
        ]
    print("\n".join(lines), flush=True)


def _next_night(parameters: UpParameters) -> str:
    from prefect.server.schemas.schedules import CronSchedule

    try:
        schedule = CronSchedule(cron=parameters.cron, timezone=parameters.timezone)
    except ValueError:
        raise RshashError(
            f"--cron '{parameters.cron}' is no schedule: expected minute, hour, day of the month, "
            "month and weekday, such as '0 2 * * *' for two o'clock every night."
        ) from None
    if not parameters.area:
        return "none: start one in the UI, or give --area for nights on a schedule"
    [moment] = asyncio.run(schedule.get_dates(1, start=datetime.now(ZoneInfo(parameters.timezone))))
    return f"{moment:%Y-%m-%d %H:%M} {parameters.timezone}"
