"""An ingest that is killed, at any moment, loses at most the blocks in flight."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from fault_server import Fault, fault_server
from ingesting import S2
from killed_ingest import READERS, Done, ingest
from two_blocks import area, assert_same, ingest_two_blocks, two_scenes

from data_catalog.catalogue import Catalogue
from data_catalog.observations import current_observations

BLOCKS, TILES = 4, 64

PROCESSES = multiprocessing.get_context("forkserver")


def run(
    root: Path, address: str, moment: int | None = None, kill_after: float | None = None
) -> Done | None:
    """Runs an ingest; returns None if it was killed, as it mostly is."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=ingest, args=(root, address, moment, there))
    process.start()
    there.close()
    assert here.recv() == "begun"
    if kill_after is not None:
        time.sleep(kill_after)
        process.kill()
    try:
        return Done(*here.recv())
    except EOFError:
        return None
    finally:
        process.join()
        assert process.exitcode in ((0,) if moment == kill_after else (0, -signal.SIGKILL))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = two_scenes(tmp_path_factory.mktemp("kills") / "source").folder
    with fault_server(folder) as server:
        yield f"{server.address}/catalog.json"


def contents(root: Path) -> dict[str, Any]:
    """Every file of the collection by its path, records without the time of their making."""
    found: dict[str, Any] = {}
    for path in sorted((root / f"tiles-{S2}").rglob("*")):
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            record.get("properties", {}).pop("created", None)
            found[str(path.relative_to(root))] = record
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def names(root: Path, pattern: str) -> set[str]:
    return {path.stem for path in root.glob(f".plans/*/parts/{pattern}")}


def test_a_run_that_is_killed_goes_on_where_it_was(source: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", source)
    assert whole is not None and len(whole.read) == BLOCKS
    expected = contents(tmp_path / "whole")
    chance = random.Random(7)
    kills: list[dict[str, Any]] = [
        {"moment": chance.randrange(1, whole.moments)} for _ in range(10)
    ]
    kills += [{"kill_after": chance.uniform(0, whole.seconds)} for _ in range(10)]
    killed, went_on = 0, 0
    for number, kill in enumerate(kills):
        root = tmp_path / f"killed-{number}"
        killed += run(root, source, **kill) is None
        published = False
        if (root / "catalog.json").exists():
            left = Catalogue.open(root)
            published = bool(left.items(f"tiles-{S2}"))
            assert len(current_observations(left, S2)) == (TILES if published else 0)
        done, begun = names(root, "*.parquet"), names(root, "*.lock")
        again = run(root, source)
        assert again is not None
        if published:
            assert (again.read, again.skipped) == ([], [])
        else:
            assert len(begun - done) <= READERS
            assert (set(again.skipped), len(again.read)) == (done, BLOCKS - len(done))
            went_on += bool(done)
        assert contents(root) == expected, kill
    assert killed >= 10 and went_on >= 2


def test_the_command_that_is_killed_goes_on_where_it_was(prefect_api: str, tmp_path: Path) -> None:
    folder = two_scenes(tmp_path / "source").folder
    whole = Catalogue.create(tmp_path / "whole")
    ingest_two_blocks(whole, str(folder))
    root, places = tmp_path / "killed", tmp_path / "area.geojson"
    places.write_text(json.dumps(shapely.geometry.mapping(area())))
    with fault_server(folder) as server:
        command = [Path(sys.executable).with_name("rshash"), "ingest", "--catalog", root]
        command += ["--source", f"{server.address}/catalog.json", "--area", places]
        command += ["--period", "2024", "--tile-size", "480", "--sensors", S2]
        command += ["--bands", "red", "swir16"]
        server.misbehave(Fault("*/east/*.tif", "latency", at_most=None, seconds=60.0))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not names(root, "*.parquet"):
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
        assert Catalogue.open(root).collections() == []
        assert len(names(root, "*.parquet")) == 1
        server.misbehave()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert server.requests("*/east/B04.tif") and not server.requests("*/west/B04.tif")
    assert_same(Catalogue.open(root), whole)
