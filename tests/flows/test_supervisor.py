"""Processes that are started again, and found again by the home in their environment."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import supervisor
from flows.supervisor import (
    FLOW_RUN,
    MARK,
    Child,
    end_flow_runs,
    end_leftovers,
    living_flow_runs,
    marked,
)

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)"
)


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    end_leftovers(tmp_path / "home")


def child(home: Path, *command: str, **environment: str) -> Child:
    variables = {**os.environ, MARK: str(home), **environment}
    return Child("one", list(command), variables, home / "logs" / "one.log", end_seconds=1.0)


def test_what_ends_again_and_again_is_started_ever_later(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = child(home, "sh", "-c", "echo no good; exit 3")
    waits = []
    for _ in range(9):
        failing.start()
        assert wait_for(failing.died) == 3
        assert failing.died() is None
        waits.append(failing.wait)
        monkeypatch.setattr(failing, "_due", time.monotonic())
        assert failing.is_due
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (home / "logs" / "one.log").read_text() == "no good\n" * 9
    monkeypatch.setattr(supervisor, "STEADY_S", 0.0)
    failing.start()
    assert wait_for(failing.died) == 3
    assert failing.wait == 0 and failing.is_due


def test_what_does_not_end_when_asked_is_killed(home: Path) -> None:
    stubborn = child(home, sys.executable, "-c", STUBBORN)
    process = stubborn.start()
    wait_for(lambda: "ready" in stubborn.log.read_text())
    stubborn.end()
    assert process.returncode is not None
    assert marked(home) == {}


def test_what_a_killed_supervisor_left_is_found_with_all_it_started(home: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: "/another"}) as foreign:
        child(home, "sh", "-c", "sleep 600 & sleep 600; true").start()
        child(home, "sleep", "600", **{FLOW_RUN: "a-run"}).start()
        wait_for(lambda: len(marked(home)) == 4)
        assert living_flow_runs(home) == {"a-run"}
        end_flow_runs(home, 10.0)
        assert living_flow_runs(home) == set() and len(marked(home)) == 3
        assert end_leftovers(home) == 3
        assert marked(home) == {} and end_leftovers(home) == 0
        assert foreign.poll() is None
        foreign.kill()


def test_a_large_log_is_put_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES", 10)
    talkative = child(home, "echo", "more than ten bytes")
    for _ in range(2):
        talkative.start().wait()
    assert sorted(path.name for path in talkative.log.parent.iterdir()) == ["one.log", "one.log.1"]
