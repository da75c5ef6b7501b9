"""The same flows in threads, in processes and on a Dask cluster, whose workers may be killed."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import zarr
from distributed import Client, LocalCluster
from fault_server import Fault, FaultServer, fault_server
from ingesting import S2
from published_world import BANDS, index, make_model, publish_segment, tiles
from two_blocks import area, two_scenes

import flows.ingest
from data_catalog import encoding_parts
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.models import publish_model
from data_catalog.verification import verify
from flows.parameters import IngestFlowParameters, RehashFlowParameters
from flows.runner_parameters import RunnerParameters
from flows.runners import Runner, check_runner
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


def skip_unless_installed(runner: str) -> None:
    if runner == "ray":
        pytest.importorskip("prefect_ray", reason="Ray is an extra: pip install 'rshash[ray]'")


@pytest.mark.parametrize("runner", ["processes", "ray"])
def test_processes_write_the_same_bytes(
    runner: str, in_threads: dict[str, str], server: FaultServer, tmp_path: Path
) -> None:
    skip_unless_installed(runner)
    assert run(server, tmp_path / "catalogue", runner=runner) == in_threads


def test_no_more_processes_are_at_work_than_a_source_may_be_asked_at_once(
    in_threads: dict[str, str],
    server: FaultServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way, most = 0, 0
    submit, done = Runner.submit, flows.ingest.as_completed

    def counted(runner: Runner, *arguments: Any, **named: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        return submit(runner, *arguments, **named)

    def ended(futures: list[Any]) -> Iterator[Any]:
        nonlocal under_way
        for future in done(futures):
            under_way -= 1
            yield future

    monkeypatch.setattr(Runner, "submit", counted)
    monkeypatch.setattr(flows.ingest, "as_completed", ended)
    monkeypatch.setattr(flows.ingest, "requests_at_once", lambda _: 1)
    assert run(server, tmp_path / "catalogue", runner="processes") == in_threads
    assert (most, under_way) == (1, 0)


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


BATCHES = 4


@pytest.fixture(scope="module")
def uncoded(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Tiles of several batches, and a model that has made no codes of them yet."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("uncoded") / "catalogue")
    publish_model(catalogue, make_model())
    random = np.random.default_rng(0)
    for number in range(BATCHES):
        some = tiles(40, row=2888 + 8 * number)
        publish_segment(catalogue, f"segment-{number}", index(some))
        folder = catalogue.root / f"tiles-{S2}" / f"segment-{number}"
        array = zarr.open_group(folder / "pixels.zarr", mode="r+")["reflectance"]
        assert isinstance(array, zarr.Array)
        brightness = random.integers(1, 4000, (len(some), len(BANDS), 1, 1), np.uint16)
        array[:] = brightness + random.integers(0, 500, array.shape, np.uint16)
    return catalogue


def codes_made(uncoded: Catalogue, root: Path, **runner: str) -> pd.DataFrame:
    from flows.rehash import rehash

    shutil.copytree(uncoded.root, root)
    lenient = {"minimum_distinct": 2, "minimum_balance": 0.0, "minimum_agreement": 0.0}
    (row,) = rehash(RehashFlowParameters(catalog=str(root), **lenient, **runner))
    catalogue = Catalogue.open(root)
    item = catalogue.item(collection_of(make_model().model_id), row["item"])
    return pd.DataFrame(published_table(catalogue, item))


@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_processes_and_clusters_make_the_same_codes(
    runner: str,
    prefect_api: str,
    uncoded: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skip_unless_installed(runner)
    monkeypatch.setattr(encoding_parts, "BATCH_TILES", 64)
    done_here: list[int] = []
    encode_batch = encoding_parts.encode_batch

    def encoded_here(plan_path: Path, number: int) -> int:
        done_here.append(number)
        return encode_batch(plan_path, number)

    monkeypatch.setattr("flows.rehash.encode_batch", encoded_here)
    in_threads = codes_made(uncoded, tmp_path / "threads")
    assert len(in_threads) == 40 * BATCHES and sorted(done_here) == list(range(BATCHES))
    codes = codes_made(uncoded, tmp_path / runner, runner=runner)
    pd.testing.assert_frame_equal(codes, in_threads)
    assert len(done_here) == BATCHES, "batches were encoded in this process"


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


KILLED = """
import os, signal
from prefect import flow, task
from flows.runner_parameters import RunnerParameters
from flows.runners import task_runner

@task
def process():
    return os.getpid()

@flow
def killed():
    with task_runner(RunnerParameters(runner="processes"), threads=1) as runner:
        print(runner.submit(process).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

killed()
"""


def test_processes_end_with_the_run_that_started_them(prefect_api: str) -> None:
    command = [sys.executable, "-c", KILLED]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    process = int(run.stdout.readline())
    assert run.wait(60) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while psutil.pid_exists(process):
        assert time.monotonic() < deadline
        time.sleep(0.1)
