"""The deployments of prefect.yaml, on a real server with a real worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import psutil
import pytest
import shapely
from disturbed_nights import DisturbedWorld, assert_as_undisturbed, with_subflows
from fault_server import Fault
from playwright.sync_api import Page, expect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.http_server import serve_folder
from flows.parameters import NightlyParameters
from flows.saved import save

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
WORLD = World(tiles=2)


def prefect(*arguments: str, seconds: int = 600) -> str:
    """Runs Prefect's own command line in the checkout, as the README says."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scheduled_runs(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id={"any_": [deployment_id]}),
        flow_run_filter=FlowRunFilter(state={"type": {"any_": ["SCHEDULED"]}}),
    )


@pytest.fixture(scope="module")
def client(prefect_api: str) -> SyncPrefectClient:
    prefect("work-pool", "create", "rshash", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    return get_client(sync_client=True)


def test_every_flow_is_deployed_with_a_form(client: SyncPrefectClient) -> None:
    deployments = {d.name: d for d in client.read_deployments()}
    assert set(deployments) == {
        "nightly",
        "ingest",
        "train",
        "rehash",
        "backfill",
        "evaluate",
    }
    for deployment in deployments.values():
        (model,) = [
            d
            for d in deployment.parameter_openapi_schema["definitions"].values()
            if d.get("type") == "object"
        ]
        assert "catalog" in model["properties"]


def test_the_night_is_scheduled_and_never_runs_twice_at_once(client: SyncPrefectClient) -> None:
    nightly = client.read_deployment_by_name("nightly/nightly")
    (schedule,) = nightly.schedules
    assert schedule.active
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * *", "UTC")
    assert nightly.global_concurrency_limit.limit == 1
    deadline = time.monotonic() + 90
    while not (runs := scheduled_runs(client, nightly.id)) and time.monotonic() < deadline:
        time.sleep(2)
    assert runs, "the scheduler has made no run of the schedule"
    assert {(run.expected_start_time.hour, run.expected_start_time.minute) for run in runs} == {
        (2, 0)
    }
    # None begins while other tests run.
    client.update_deployment_schedule(nightly.id, schedule.id, active=False)
    assert nightly.concurrency_options.collision_strategy == "CANCEL_NEW"


def fill_in(page: Page, form: str, values: dict[str, str]) -> None:
    page.goto(form)
    for label, value in values.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Submit").click()


def test_a_run_is_started_from_the_form_and_its_page_tells_what_it_did(
    client: SyncPrefectClient, prefect_api: str, page: Page, tmp_path: Path
) -> None:
    build_world(tmp_path / "world", 1, WORLD)
    save("area", "the-world", json.dumps(shapely.geometry.mapping(world_area(WORLD))))
    deployment = client.read_deployment_by_name("ingest/ingest")
    form = f"{prefect_api}/v2/deployments/deployment/{deployment.id}/run"
    with serve_folder(tmp_path / "world") as address:
        values = {
            "Area": "saved:the-world",
            "Period (Optional)": "2024-06-01/2024-09-30",
            "Catalogue (Optional)": str(tmp_path / "catalogue"),
            "Source catalogue (Optional)": f"{address}/catalog.json",
            "Minimum clear fraction (Optional)": "0.2",
        }
        fill_in(page, form, values | {"Period (Optional)": "June"})
        expect(page.get_by_text("'June' does not match").first).to_be_visible()
        assert scheduled_runs(client, deployment.id) == []
        fill_in(page, form, values)
        page.wait_for_url(f"**/deployment/{deployment.id}?tab=Runs")
        (run,) = scheduled_runs(client, deployment.id)
        page.goto(f"{prefect_api}/v2/runs/flow-run/{run.id}?tab=Artifacts")
        prefect("worker", "start", "--pool", "rshash", "--run-once")
        # The open page follows the run.
        expect(page.get_by_text("Completed").first).to_be_visible()
    collections = Catalogue.open(tmp_path / "catalogue").collections()
    assert collections == ["tiles-sentinel-2-l2a", "tiles-landsat-c2-l2"]
    assert client.read_flow_run(run.id).parameters["parameters"]["area"] == "saved:the-world"
    page.reload()
    page.get_by_text("ingested", exact=True).click()
    page.wait_for_url("**/artifacts/key/ingested*")
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    expect(page.get_by_role("heading", name="Durations")).to_be_visible()
    for told in ("sentinel-2-l2a", "search and plan", "valid"):
        expect(page.get_by_text(told, exact=True).first).to_be_visible()


@contextmanager
def worker(said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that goes on until it is ended."""
    with said.open("wb") as output:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "rshash"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def process_of(run: FlowRun) -> psutil.Process | None:
    """The process that works on a flow run, if there is one by now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
                return process
    return None


def wait_for(what: str, found: Callable[[], T | None], seconds: float = 240) -> T:
    deadline = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)
    return it


@pytest.mark.faults
def test_a_night_ends_neither_with_the_one_before_nor_with_its_worker(
    client: SyncPrefectClient, disturbed: DisturbedWorld, tmp_path: Path
) -> None:
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    nightly = client.read_deployment_by_name("nightly/nightly")

    def begun() -> tuple[FlowRun, psutil.Process]:
        parameters = NightlyParameters(**disturbed.parameters(catalogue))
        given = {"parameters": parameters.form()}
        run = client.create_flow_run_from_deployment(nightly.id, parameters=given)
        process = wait_for("its process", lambda: process_of(run))
        # Only now: what a killed night had asked for is told late.
        disturbed.server.misbehave(Fault("*.tif", "latency", at_most=1, seconds=4.0))
        wait_for("a night that reads", lambda: disturbed.server.requests("*.tif"))
        return run, process

    def state(run: FlowRun) -> State:
        now = client.read_flow_run(run.id).state
        assert now is not None
        return now

    with worker(tmp_path / "worker.txt") as process:
        killed, its_process = begun()
        its_process.kill()
        wait_for("its state", lambda: state(killed).is_final())
        assert state(killed).is_crashed() and "SIGKILL" in str(state(killed).message)
        run, _ = begun()
        process.kill()
        wait_for("the end of the night", lambda: state(run).is_final())
    assert state(run).is_completed(), state(run)
    assert_as_undisturbed(catalogue, disturbed)
    # The worker told of the killed night itself, the next night of what ran inside.
    assert not [one for one in with_subflows(killed) if one.state and not one.state.is_final()]
