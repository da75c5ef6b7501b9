"""`rshash up` as a user runs it: started, killed, started again, ended; on both databases."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from free_ports import free_port
from stac_api import postgresql, postgresql_programs

from flows.supervisor import living_flow_runs, marked

RSHASH = str(Path(sys.executable).with_name("rshash"))
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
AREA = "8.70,48.30,8.90,48.50"
SECONDS = 400


def wait_for(what: str, found: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)
    return result


@dataclass
class Up:
    home: Path
    port: int
    service_port: int
    environment: dict[str, str]
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        ports = ["--port", str(self.port), "--service-port", str(self.service_port)]
        places = ["--home", str(self.home), "--catalog", str(self.home.parent / "catalogue")]
        return [RSHASH, "up", *places, *ports, *self.arguments]

    def start(self) -> str:
        """Starts it; returns what it said when all was up."""
        said = self.home.parent / "said.txt"
        with said.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.home.parent,
            )

        def told() -> str | None:
            assert self.process is not None and self.process.poll() is None, said.read_text()
            return text if "Ctrl+C ends it all" in (text := said.read_text()) else None

        return str(wait_for("rshash up", told))

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def ask(self, path: str, **body: Any) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        answer = requests.post(address, json=body, timeout=30) if body else requests.get(address)
        answer.raise_for_status()
        return answer.json()

    def run(self, deployment: str, **parameters: Any) -> str:
        found = self.ask(f"deployments/name/{deployment}/{deployment}")
        body = {"parameters": {"parameters": parameters}, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", **body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.ask(f"flow_runs/{run}")["state"]
        return state

    def child(self, *words: str) -> psutil.Process | None:
        """One of its processes, by words of its command."""
        for process in marked(self.home):
            try:
                if set(words) <= set(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None


@contextmanager
def prepared(folder: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PREFECT")}
    up = Up(folder / "home", free_port(), free_port(), inherited | environment, arguments)
    try:
        yield up
    finally:
        if up.process is not None and up.process.poll() is None:
            up.process.kill()
        for process in marked(up.home):
            process.kill()


@contextmanager
def silent_source() -> Iterator[str]:
    """An address that takes requests and never answers: a run that asks there goes on and on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/catalog.json"


def test_it_survives_the_death_of_any_of_its_processes(tmp_path: Path) -> None:
    night = ["--area", AREA, "--cron", "30 3 * * *", "--timezone", "Europe/Berlin"]
    with (
        silent_source() as source,
        prepared(tmp_path, *night, "--source", source, "--bits", "32") as up,
    ):
        said = up.start()
        assert f"http://127.0.0.1:{up.port}" in said and "03:30 Europe/Berlin" in said
        nightly = up.ask("deployments/name/nightly/nightly")
        assert nightly["parameters"]["parameters"] == {
            "catalog": str(tmp_path / "catalogue"),
            "area": AREA,
            "source": source,
            "learning": {"bits": 32},
        }
        (schedule,) = nightly["schedules"]
        assert schedule["active"]
        assert schedule["schedule"]["timezone"] == "Europe/Berlin"
        assert up.ask("v2/concurrency_limits/gpu")["limit"] >= 1
        page = f"http://127.0.0.1:{up.service_port}/"
        said = wait_for("the service", lambda: answer(page))
        assert said.startswith("503 ") and "No codes are published yet" in said

        again = subprocess.run(
            up.command, env=up.environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert again.returncode == 2 and "runs already with the home" in again.stderr

        run = up.run("ingest", area=AREA, source=source)
        wait_for("the run", lambda: run in living_flow_runs(up.home))
        wait_for("its state", lambda: up.state(run)["type"] == "RUNNING")
        for words in (("serve",), ("worker", "start"), ("server", "start")):
            victim = wait_for(f"{words}", lambda words=words: up.child(*words))
            victim.kill()
            wait_for(
                f"another {words}",
                lambda words=words, victim=victim: (other := up.child(*words)) and other != victim,
            )
        # The run goes on without the worker that started it, and the server that it reports to.
        health = f"http://127.0.0.1:{up.port}/api/health"
        wait_for("the server", lambda: answer(health) == "200 true")
        assert up.state(run)["type"] == "RUNNING"

        up.end(signal.SIGKILL)
        assert up.child("worker", "start") and run in living_flow_runs(up.home)
        said = up.start()
        assert "that a killed `rshash up` had left behind" in said
        state = up.state(run)
        assert state["type"] == "CRASHED" and "ended from outside" in state["message"]
        assert living_flow_runs(up.home) == set()
        run = up.run("ingest", area=AREA, source=source)
        wait_for("the run", lambda: run in living_flow_runs(up.home))

        assert up.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert marked(up.home) == {}


def test_it_ends_all_of_it_where_nobody_reads_what_it_says(tmp_path: Path) -> None:
    with (
        prepared(tmp_path) as up,
        subprocess.Popen(
            up.command, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Starting the Prefect server")
        process.stdout.close()
        process.wait(SECONDS)
        assert marked(up.home) == {}


def answer(page: str) -> str | None:
    try:
        found = requests.get(page, timeout=10)
    except (requests.ConnectionError, requests.Timeout):
        return None
    return f"{found.status_code} {found.text}"


def test_it_runs_on_postgresql_and_never_shows_the_password(tmp_path: Path) -> None:
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL with PostGIS is not installed")
    with postgresql(programs) as connection:
        user = f"{connection['PGUSER']}:{connection['PGPASSWORD']}"
        place = f"{connection['PGHOST']}:{connection['PGPORT']}/{connection['PGDATABASE']}"
        with prepared(tmp_path, RSHASH_DATABASE=f"postgresql://{user}@{place}") as up:
            said = up.start()
            assert "Next night:        none" in said
            nightly = up.ask("deployments/name/nightly/nightly")
            assert [schedule["active"] for schedule in nightly["schedules"]] == [False]
            run = up.run("rehash")
            state = wait_for(
                "the run", lambda: (s := up.state(run))["type"] in ("FAILED", "CRASHED") and s
            )
            assert "holds no catalogue" in state["message"]
            assert up.end(signal.SIGINT) == 128 + signal.SIGINT
        assert not (tmp_path / "home" / "prefect" / "prefect.db").exists()
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert written
        for path in written:
            assert connection["PGPASSWORD"].encode() not in path.read_bytes(), path
