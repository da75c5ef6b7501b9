"""A night whose process is killed, at any moment: the next one finishes its work."""

import random
from pathlib import Path

import pytest
from disturbed_nights import (
    DisturbedWorld,
    assert_as_undisturbed,
    blocks_in_flight,
    own_ranges,
    page_of,
    run_called,
)
from night_process import Disturbance, NightProcesses

pytestmark = pytest.mark.faults

Moments = dict[str, int]
Places = dict[tuple[str, str], str]

STAGES = ("looking", "reading", "reading", "publishing segments", "encoding", "publishing codes")
"""At which a night is killed, at a random moment of each."""


def fetched(world: DisturbedWorld) -> set[tuple[str, str]]:
    return {(request.path, request.bytes) for request in world.server.requests("*.tif")}


@pytest.fixture(scope="module")
def own(disturbed: DisturbedWorld) -> Places:
    return own_ranges(disturbed)


@pytest.fixture(scope="module")
def moments(
    disturbed: DisturbedWorld,
    processes: NightProcesses,
    own: Places,
    tmp_path_factory: pytest.TempPathFactory,
) -> Moments:
    """Of an undisturbed night, which fetches what each block wants."""
    catalogue = disturbed.after_first_night(tmp_path_factory.mktemp("undisturbed") / "catalogue")
    disturbed.server.misbehave()
    night = processes.run("undisturbed", disturbed.parameters(catalogue))
    assert night.status == 0, processes.said("undisturbed")
    assert own.keys() <= fetched(disturbed)
    assert_as_undisturbed(catalogue, disturbed)
    return night.moments


@pytest.mark.parametrize(("seed", "stage"), list(enumerate(STAGES)))
def test_the_night_after_one_that_was_killed_finishes_its_work(
    seed: int,
    stage: str,
    disturbed: DisturbedWorld,
    processes: NightProcesses,
    own: Places,
    moments: Moments,
    tmp_path: Path,
) -> None:
    # Threads that wait for one another make a night's moments differ by a few.
    kill = Disturbance(stage, random.Random(seed).randint(1, max(1, moments[stage] * 9 // 10)))
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    disturbed.server.misbehave()
    name = f"killed-{seed}"
    killed = processes.run(name, disturbed.parameters(catalogue), kill)
    assert killed.status == -9, processes.said(name)
    before, in_flight = fetched(disturbed), blocks_in_flight(catalogue)
    disturbed.server.misbehave()
    after = processes.run(f"after-{name}", disturbed.parameters(catalogue))
    assert after.status == 0, processes.said(f"after-{name}")
    again = fetched(disturbed)
    assert {own[place] for place in before & again if place in own} <= in_flight, kill
    if stage in ("encoding", "publishing codes"):
        assert again == set()
    assert_as_undisturbed(catalogue, disturbed)
    run = run_called(name)
    assert run.state is not None and run.state.is_crashed()
    assert "ended without a word" in page_of(run)
