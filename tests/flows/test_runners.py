"""The same ingest in threads, in processes and on a Dask cluster, whose workers may be killed."""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from fault_server import Fault, FaultServer, fault_server
from ingesting import S2
from two_blocks import area, two_scenes

from data_catalog.catalogue import Catalogue
from data_catalog.verification import verify
from flows.parameters import IngestFlowParameters
from flows.runner_parameters import RunnerParameters
from flows.runners import check_runner
from rshash.errors import RshashError

TILES = 128
PLACES = " ".join(f"{point.x:.7f},{point.y:.7f}" for point in area().geoms)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    folder = two_scenes(tmp_path_factory.mktemp("runners")).folder
    with fault_server(folder) as server:
        yield server


def run(server: FaultServer, catalog: Path, **runner: str) -> dict[str, str]:
    """Ingests 32 blocks of small tiles; returns the checksums of what was published."""
    from flows.ingest import ingest

    parameters = IngestFlowParameters(
        catalog=str(catalog),
        source=f"{server.address}/catalog.json",
        area=PLACES,
        period="2024",
        tile_size=120,
        sensors=[S2],
        bands=["red", "swir16"],
        **runner,
    )
    (row,) = ingest(parameters)
    assert (row["blocks"], row["valid"], row["invalid"]) == (32, TILES, 0)
    assert verify(Catalogue.open(catalog)) == []
    folder = catalog / f"tiles-{S2}" / row["segment"]
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def in_threads(
    prefect_api: str, server: FaultServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return run(server, tmp_path_factory.mktemp("threads") / "catalogue")


def test_processes_write_the_same_bytes(
    in_threads: dict[str, str], server: FaultServer, tmp_path: Path
) -> None:
    assert run(server, tmp_path / "catalogue", runner="processes") == in_threads


def kill_one_at_work(client: Client, catalog: Path, killed: list[int]) -> None:
    """Kills the process of a worker as soon as blocks are done and it works on others."""
    while not any(catalog.rglob("parts/*.parquet")):
        time.sleep(0.01)
    pids = client.run(os.getpid)
    while not killed:
        for worker, tasks in client.processing().items():
            if tasks:
                os.kill(pids[worker], signal.SIGKILL)
                killed.append(pids[worker])
                return


def test_a_dask_cluster_that_loses_a_worker_writes_the_same_bytes(
    in_threads: dict[str, str], server: FaultServer, tmp_path: Path
) -> None:
    server.misbehave(Fault("*.tif", "latency", at_most=None, seconds=0.2))
    killed: list[int] = []
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        arguments = (client, tmp_path / "catalogue", killed)
        killer = threading.Thread(target=kill_one_at_work, args=arguments, daemon=True)
        killer.start()
        address = cluster.scheduler_address
        found = run(server, tmp_path / "catalogue", runner="dask", runner_address=address)
        killer.join(10)
    assert len(killed) == 1
    assert found == in_threads


def test_a_runner_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(RshashError, match=r"pip install 'rshash\[ray\]'"):
        check_runner(RunnerParameters(runner="ray"))


@pytest.mark.parametrize(
    ("runner", "address", "says"),
    [
        ("threads", "tcp://h:1", "is not for --runner threads"),
        ("dask", "scheduler", "one such as tcp://scheduler:8786"),
        ("ray", "http://h", "one such as ray://head:10001"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(runner: str, address: str, says: str) -> None:
    with pytest.raises(RshashError, match=says):
        RunnerParameters(runner=runner, runner_address=address)
