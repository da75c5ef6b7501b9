"""A source that is down for a night: the run says so, nothing is lost, and the next makes up."""

import socket
from pathlib import Path

import pytest
from demo_nights import checksums
from disturbed_nights import (
    DisturbedWorld,
    assert_as_undisturbed,
    assert_same_view,
    page_of,
    run_called,
)
from fault_server import Fault, fault_server

from data_catalog import byte_ranges, source_catalogue
from data_catalog.catalogue import Catalogue
from data_catalog.errors import SourceError
from flows.parameters import NightlyParameters

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries as often as ever, without the waits between."""
    monkeypatch.setattr(byte_ranges, "RETRY_DELAYS_S", (0.01, 0.01, 0.01))
    retry = source_catalogue._RETRY
    monkeypatch.setattr(source_catalogue, "_RETRY", retry.new(backoff_factor=0.001))


def night(world: DisturbedWorld, catalogue: Catalogue, name: str, **others: object) -> None:
    from flows.nightly import nightly

    run = nightly.with_options(flow_run_name=name)
    run(NightlyParameters(**world.parameters(catalogue, **others)))


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("fault", ["refused", "503"])
def test_a_source_that_is_down(fault: str, disturbed: DisturbedWorld, tmp_path: Path) -> None:
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    published = checksums(catalogue.root)
    source = f"{disturbed.server.address}/catalog.json"
    if fault == "refused":
        source = f"http://127.0.0.1:{unused_port()}/catalog.json"
    else:
        disturbed.server.misbehave(Fault("*", "status", at_most=None))
    name = f"source-{fault}"
    with pytest.raises(SourceError):
        night(disturbed, catalogue, name, source=source)
    assert checksums(catalogue.root) == published
    run = run_called(name)
    assert run.state is not None and run.state.is_failed()
    page = page_of(run)
    assert source in page and "sentinel-2-l2a" in page and "next run" in page
    disturbed.server.misbehave()
    night(disturbed, catalogue, f"after-{name}")
    assert_as_undisturbed(catalogue, disturbed)


def test_a_source_whose_files_are_down(disturbed: DisturbedWorld, tmp_path: Path) -> None:
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    published = checksums(catalogue.root)
    # A server of its own: this process remembers blocks of the other's files.
    with fault_server(disturbed.folder / "world") as server:
        world = DisturbedWorld(disturbed.folder, server)
        server.misbehave(Fault("*.tif", "status", at_most=None))
        night(world, catalogue, "files-down")
        now = checksums(catalogue.root)
        assert all(now[path] == sum_ for path, sum_ in published.items() if path.suffix != ".json")
        page = page_of(run_called("files-down"))
        for told in (server.address, "sentinel-2-l2a", "landsat-c2-l2", "503", "next run"):
            assert told in page, told
        server.misbehave()
        night(world, catalogue, "after-files-down")
    assert_same_view(catalogue, disturbed)


def test_one_sensor_that_is_down(disturbed: DisturbedWorld, tmp_path: Path) -> None:
    catalogue = disturbed.after_first_night(tmp_path / "catalogue")
    disturbed.server.misbehave(Fault("/landsat-c2-l2/collection.json", "status", at_most=None))
    night(disturbed, catalogue, "landsat-down")
    page = page_of(run_called("landsat-down"))
    assert "landsat-c2-l2" in page and disturbed.server.address in page and "next run" in page
    disturbed.server.misbehave()
    night(disturbed, catalogue, "after-landsat-down")
    assert_as_undisturbed(catalogue, disturbed)
