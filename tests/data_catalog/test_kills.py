"""An ingest that is killed, at any moment, loses at most the blocks in flight."""

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import fault_server
from ingesting import S2
from killed_ingest import READERS, Done, ingest
from two_blocks import two_scenes

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
    # Once for all runs: importing takes longer than they do.
    PROCESSES.set_forkserver_preload(
        ["__main__", "data_catalog.ingest", "data_catalog.observations"]
    )
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
        if (root / "catalog.json").exists():
            left = Catalogue.open(root)
            shown = current_observations(left, S2) if left.items(f"tiles-{S2}") else []
            assert len(shown) in (0, TILES)
        done, begun = names(root, "*.parquet"), names(root, "*.lock")
        assert len(begun - done) <= READERS
        again = run(root, source)
        assert again is not None
        if again.read or again.skipped:
            assert (set(again.skipped), len(again.read)) == (done, BLOCKS - len(done))
            went_on += bool(done)
        assert contents(root) == expected, kill
    assert killed >= 15 and went_on >= 4
