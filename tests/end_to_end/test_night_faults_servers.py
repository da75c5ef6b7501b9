"""A Prefect server or its database that ends in the middle of a night."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disturbed_nights import DisturbedWorld, assert_as_undisturbed, page_of, run_called
from fault_server import Fault
from night_process import NightProcesses, night_processes
from prefect_servers import prefect_server_of_its_own, restarted_postgresql
from stac_api import postgresql, postgresql_programs

from data_catalog.catalogue import Catalogue

pytestmark = pytest.mark.faults

SLOW = Fault("*.tif", "latency", at_most=1, seconds=4.0)
"""So that a night is still reading when its server has ended."""

READING, ENCODING = ".plans/*/parts/*.lock", ".cache/encoded/*/*.plan.parquet"
"""Files of a catalogue that tell what a night has come to."""


def night_whose_server_ends(
    world: DisturbedWorld,
    nights: NightProcesses,
    catalogue: Catalogue,
    disturb: Callable[[], Any],
    moment: str = READING,
) -> int:
    """A night; what disturbs it happens once there is such a file. Returns its exit status."""
    world.server.misbehave(SLOW)
    nights.begin("disturbed", world.parameters(catalogue))
    deadline = time.monotonic() + 300
    while not list(catalogue.root.glob(moment)):
        assert time.monotonic() < deadline, nights.said("disturbed")
        time.sleep(0.01)
    disturb()
    return nights.wait().status


def assert_the_next_night_finishes_it(
    world: DisturbedWorld, nights: NightProcesses, catalogue: Catalogue
) -> None:
    world.server.misbehave()
    after = nights.run("after", world.parameters(catalogue))
    assert after.status == 0, nights.said("after")
    assert_as_undisturbed(catalogue, world)
    last = run_called("after").state
    assert last is not None and last.is_completed()


def assert_its_page_says_how_it_ended(status: int) -> None:
    run = run_called("disturbed")
    assert run.state is not None and run.state.is_final()
    assert run.state.is_completed() == (status == 0)
    page = page_of(run)
    if status == 0:
        assert "nightly: " in page and "tiles read" in page
    else:
        assert "failure: " in page or "ended without a word" in page


@pytest.mark.parametrize("moment", [READING, ENCODING], ids=["reading", "encoding"])
def test_a_server_that_is_killed_and_started_again(
    moment: str, disturbed: DisturbedWorld, tmp_path: Path
) -> None:
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    with (
        prefect_server_of_its_own(tmp_path / "prefect") as server,
        night_processes(tmp_path / "nights", server.environment) as nights,
    ):

        def kill_and_start() -> None:
            server.kill()
            assert not server.answers()
            server.start()

        status = night_whose_server_ends(disturbed, nights, catalogue, kill_and_start, moment)
        assert_the_next_night_finishes_it(disturbed, nights, catalogue)
        assert_its_page_says_how_it_ended(status)


def test_a_database_that_is_restarted(disturbed: DisturbedWorld, tmp_path: Path) -> None:
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    with (
        postgresql(programs) as connection,
        restarted_postgresql(connection) as restart,
        prefect_server_of_its_own(tmp_path / "prefect", connection) as server,
        night_processes(tmp_path / "nights", server.environment) as nights,
    ):
        status = night_whose_server_ends(disturbed, nights, catalogue, restart)
        assert_the_next_night_finishes_it(disturbed, nights, catalogue)
        assert_its_page_says_how_it_ended(status)
