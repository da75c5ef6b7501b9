"""A night whose process is killed, at any moment: the next one finishes its work."""

import random
from pathlib import Path

from disturbed_nights import (
    DisturbedWorld,
    assert_as_undisturbed,
    blocks_in_flight,
    own_ranges,
    page_of,
    run_called,
)
from night_process import Disturbance, NightProcesses

STAGES = (
    "looking",
    "reading",
    "reading",
    "publishing segments",
    "encoding",
    "publishing codes",
)
"""At which a night is killed, at a random moment of each."""


def fetched(world: DisturbedWorld) -> set[tuple[str, str]]:
    return {(request.path, request.bytes) for request in world.server.requests("*.tif")}


def test_the_night_after_one_that_was_killed_finishes_its_work(
    disturbed: DisturbedWorld, processes: NightProcesses, tmp_path: Path
) -> None:
    own = own_ranges(disturbed)
    catalogue = disturbed.after_first_night(tmp_path / "undisturbed")
    disturbed.server.misbehave()
    night = processes.run("undisturbed", disturbed.parameters(catalogue))
    assert night.status == 0, processes.said("undisturbed")
    assert own.keys() <= fetched(disturbed)
    assert_as_undisturbed(catalogue, disturbed)
    chance, went_on = random.Random(6), 0
    for stage in STAGES:
        kill = Disturbance(stage, chance.randint(1, night.moments[stage]))
        name = f"killed-{stage}-{kill.moment}".replace(" ", "-")
        catalogue = disturbed.after_first_night(tmp_path / name)
        disturbed.server.misbehave()
        killed = processes.run(name, disturbed.parameters(catalogue), kill)
        assert killed.status == -9, processes.said(name)
        before, in_flight = fetched(disturbed), blocks_in_flight(catalogue)
        disturbed.server.misbehave()
        after = processes.run(f"after-{name}", disturbed.parameters(catalogue))
        assert after.status == 0, processes.said(f"after-{name}")
        again = fetched(disturbed)
        assert {own[place] for place in before & again if place in own} <= in_flight
        went_on += not again.issuperset(own)
        assert_as_undisturbed(catalogue, disturbed)
        run = run_called(name)
        assert run.state is not None and run.state.is_crashed(), name
        assert "ended without a word" in page_of(run)
    assert went_on >= 3
