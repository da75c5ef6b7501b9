import json
import os
import shutil
from collections.abc import Iterator

import pytest
import shapely
from browsing import SLOW
from demo_nights import WORLD, Nights, checksums
from disturbed_nights import DisturbedWorld, disturbed_world
from night_process import NightProcesses, night_processes
from playwright.sync_api import Page, sync_playwright

from data_catalog.demo_world.world import build_world, world_area
from data_catalog.http_server import serve_folder
from flows.parameters import NightlyParameters


@pytest.fixture(scope="session")
def nights(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """Two nights and a third without news; the world is served as long as tests run."""
    from flows.nightly import nightly

    folder = tmp_path_factory.mktemp("nights")
    (folder / "area.geojson").write_text(json.dumps(shapely.geometry.mapping(world_area(WORLD))))
    build_world(folder / "world", 1, WORLD)
    with serve_folder(folder / "world") as address:
        run = Nights(folder, f"{address}/catalog.json", [], {})
        parameters = NightlyParameters(**run.parameters, clusters=8)
        run.reports.append(nightly(parameters))
        run.checksums = checksums(folder / "catalogue")
        build_world(folder / "world", 2, WORLD)
        run.reports.append(nightly(parameters))
        run.reports.append(nightly(parameters))
        yield run


@pytest.fixture(scope="session")
def disturbed(
    prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DisturbedWorld]:
    """A world whose second night can be disturbed; processes that run tests share what is built."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "disturbed"
    with disturbed_world(folder) as world:
        yield world


@pytest.fixture(scope="session")
def processes(
    prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NightProcesses]:
    with night_processes(tmp_path_factory.mktemp("processes")) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: install it, for example with `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 950})
        page.set_default_timeout(SLOW)
        yield page
        browser.close()
