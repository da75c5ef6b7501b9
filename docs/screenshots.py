"""Takes the pictures of the Prefect UI that the docs show: .venv/bin/python docs/screenshots.py

A real server, a small demonstration world, two nights, a run that fails; needs Chromium.
"""

import json
import subprocess
import sys
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import shapely
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.http_server import serve_folder
from flows.server import prefect_server
from rshash.errors import RshashError

DOCS = Path(__file__).parent
WORLD = World(tiles=8, column=306, row=2770)
SLOW = 120_000


def main() -> None:
    """Runs the nights and takes the pictures."""
    with TemporaryDirectory() as folder, prefect_server(Path(folder) / "prefect") as address:
        _prefect("work-pool", "create", "rshash", "--type", "process")
        _prefect("--no-prompt", "deploy", "--all")
        run_nights(Path(folder))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(SLOW)
            take_pictures(page, f"{address}/v2")
            take_decision(page, f"{address}/v2", Path(folder))
            browser.close()


def run_nights(folder: Path) -> None:
    """Two nights, and one whose source is not there."""
    from flows.nightly import nightly
    from flows.parameters import NightlyParameters
    from flows.saved import save

    save("area", "the-alb", json.dumps(shapely.geometry.mapping(world_area(WORLD))))
    build_world(folder / "world", 1, WORLD)
    with serve_folder(folder / "world") as source:
        given = {
            "catalog": str(folder / "catalogue"),
            "source": f"{source}/catalog.json",
            "area": "saved:the-alb",
            "period": "2024-06-01/2024-09-30",
            "minimum_clear": 0.3,
            "clusters": 12,
        }
        nightly(NightlyParameters(**given))
        build_world(folder / "world", 2, WORLD)
        nightly(NightlyParameters(**given))
    with suppress(RshashError):
        nightly(NightlyParameters(**given))


def take_pictures(page: Page, address: str) -> None:
    """One of the form, and of the pages of runs and what they show."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("nightly/nightly")
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name={"any_": ["nightly"]}),
            flow_run_filter=FlowRunFilter(state={"type": {"any_": ["COMPLETED", "FAILED"]}}),
            sort=FlowRunSort.START_TIME_ASC,
        )
        shown = {
            (number, artifact.key): artifact.id
            for number, run in enumerate(runs)
            for artifact in client.read_artifacts(
                flow_run_filter=FlowRunFilter(id={"any_": [run.id]})
            )
        }
    _, second, failed = range(3)
    page.goto(f"{address}/deployments/deployment/{deployment.id}/run")
    page.get_by_label("Area", exact=True).fill("saved:the-alb")
    take(page, "ui-form", 1500, "Quality gate")
    page.goto(f"{address}/runs/flow-run/{runs[second].id}?tab=Artifacts")
    take(page, "ui-run", 1500, "changed-tiles")
    for number, key, name, height in (
        (second, "changed-tiles", "ui-changes", 1100),
        (failed, "failure", "ui-failure", 820),
    ):
        page.goto(f"{address}/artifacts/artifact/{shown[number, key]}")
        take(page, name, height, "Show Raw Data")


def take_decision(page: Page, address: str, folder: Path) -> None:
    """One of the form in which codes that failed the quality gate are approved or rejected."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    from flows.backfill import backfill
    from flows.parameters import TrainParameters
    from flows.quality_parameters import BackfillParameters
    from flows.train import train

    catalog = str(folder / "catalogue")
    train(TrainParameters(catalog=catalog, clusters=12, bits=32))
    asking = BackfillParameters(catalog=catalog, minimum_agreement=0.9, on_failure="ask")

    def run() -> None:
        with suppress(RshashError):
            backfill(asking)

    # The settings that name the server are this thread's own.
    thread = Thread(target=copy_context().run, args=(run,))
    thread.start()
    paused = FlowRunFilter(state={"type": {"any_": ["PAUSED"]}})
    with get_client(sync_client=True) as client:
        while not (waiting := client.read_flow_runs(flow_run_filter=paused)):
            page.wait_for_timeout(500)
    page.goto(f"{address}/runs/flow-run/{waiting[0].id}")
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Resume").click()
    take(page, "ui-decision", 900, "Approve these codes")
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    thread.join(60)


def take(page: Page, name: str, height: int, text: str) -> None:
    """Takes a picture once a text is there, and what is loading has come."""
    page.set_viewport_size({"width": 1280, "height": height})
    page.get_by_text(text).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_function("!document.querySelector('.animate-pulse')")
    page.wait_for_timeout(1500)
    path = DOCS / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(128)
    few.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def _prefect(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=DOCS.parent,
        check=True,
        capture_output=True,
        timeout=300,
    )


if __name__ == "__main__":
    main()
