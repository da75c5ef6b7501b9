"""Runs that end elsewhere than in their own process: by Ctrl+C, or cancelled in the UI."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Cancelled, Running

from flows import deployments
from flows.supervisor import FLOW_RUN, MARK

INTERRUPTED = """
import os, signal, time
from flows import cli
from prefect import flow
from prefect.runtime import flow_run

signal.signal(signal.SIGINT, cli._interrupt)

@flow
def slow():
    print(flow_run.id, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)

slow()
"""


def test_a_server_is_told_of_a_run_that_its_shell_interrupts(prefect_api: str) -> None:
    environment = os.environ | {"PREFECT_API_URL": f"{prefect_api}/api"}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 130 and "Interrupted" in done.stderr
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(done.stdout.strip())).state
    assert state is not None and state.is_crashed() and "Ctrl+C" in str(state.message)


def test_the_process_of_a_run_that_is_over_is_ended(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def night() -> None: ...

    def process_of(run_id: UUID) -> subprocess.Popen[bytes]:
        marks = {MARK: str(tmp_path), FLOW_RUN: str(run_id)}
        code = "import time; time.sleep(600)"
        return subprocess.Popen([sys.executable, "-c", code], env=os.environ | marks)

    with get_client(sync_client=True) as client:
        cancelled = client.create_flow_run(night, state=Running()).id
        under_way = client.create_flow_run(night, state=Running()).id
        client.set_flow_run_state(cancelled, Cancelled(), force=True)
    one, other = process_of(cancelled), process_of(under_way)
    try:
        deployments.end_finished_runs(tmp_path)
        assert one.poll() is None
        monkeypatch.setattr(deployments, "SECONDS_TO_END", 0)
        deployments.end_finished_runs(tmp_path)
        assert one.poll() is not None and other.poll() is None
    finally:
        for process in (one, other):
            process.kill()
            process.wait()
