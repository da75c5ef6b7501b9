"""Re-hashing costs what has changed: nothing, some tiles of a zone, or what a killed run left."""

import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import zarr
from demo_nights import checksums
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles

from data_catalog import encoding_parts
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.grid import Tile, Zone
from data_catalog.models import publish_model
from flows.parameters import RehashFlowParameters
from flows.rehash import rehash

NORTH, SOUTH = tiles(200), tiles(24, Zone(33, "S"))
LENIENT = {"minimum_balance": 0.0, "minimum_distinct": 2, "minimum_agreement": 0.0}
KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from data_catalog import encoding_parts
from flows.cli import main

encode, first, folder = encoding_parts.encode_observations, threading.Lock(), Path(sys.argv.pop(1))

def killed(*arguments):
    if first.acquire(blocking=False):
        return encode(*arguments)
    while not list(folder.glob("*.codes.parquet")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

encoding_parts.BATCH_TILES, encoding_parts.encode_observations = 64, killed
main()
"""
"""A re-hash that is killed once a batch is encoded."""


def publish(catalogue: Catalogue, name: str, some: list[Tile], day: str, scene: str) -> None:
    publish_segment(catalogue, name, index(some, day, scene))
    group = zarr.open_group(catalogue.root / f"tiles-{SENSOR}" / name / "pixels.zarr", mode="r+")
    array = group["reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(len(name))
    flat = random.integers(1, 4000, (len(some), len(BANDS), 1, 1), np.uint16)
    array[:] = np.broadcast_to(flat, array.shape)


@pytest.fixture(scope="module")
def catalogue(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Two zones, seen once; nothing is encoded."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("nights") / "catalogue")
    publish_model(catalogue, make_model())
    publish(catalogue, "first", [*NORTH, *SOUTH], "2024-06-02", "S2A_1")
    return catalogue


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of tiles that are encoded, batch by batch."""
    monkeypatch.setattr(encoding_parts, "BATCH_TILES", 64)
    encode, numbers = encoding_parts.encode_observations, list[int]()

    def counted(*arguments: Any) -> Any:
        numbers.append(len(arguments[2]))
        return encode(*arguments)

    monkeypatch.setattr(encoding_parts, "encode_observations", counted)
    return numbers


def rehashed(catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """What a re-hash published, by zone."""
    report = rehash(RehashFlowParameters(catalog=str(catalogue.root), **LENIENT))
    return {row["zone"]: row for row in report}


def scenes(catalogue: Catalogue) -> dict[str, list[str]]:
    items = catalogue.items(collection_of(catalogue.model_id()))
    return {
        tile_id: list(ids)
        for table in (published_table(catalogue, item) for item in items)
        for tile_id, ids in zip(table["tile_id"], table["source_scenes"], strict=True)
    }


def test_a_killed_rehash_goes_on_with_its_parts(catalogue: Catalogue, encoded: list[int]) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in LENIENT.items()]
    arguments = ["rehash", "--catalog", str(catalogue.root), *options]
    folder = catalogue.root / ".cache" / "encoded" / catalogue.model_id()
    program = [sys.executable, "-c", KILLED, str(folder), *arguments]
    run = subprocess.run(program, stderr=subprocess.PIPE)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert catalogue.items(collection_of(catalogue.model_id())) == []
    published = rehashed(catalogue)
    assert {row["tiles"] for row in published.values()} == {len(NORTH), len(SOUTH)}
    assert 0 < sum(encoded) < len(NORTH) + len(SOUTH)
    assert list(folder.iterdir()) == []


def test_a_night_without_news_changes_nothing(catalogue: Catalogue, encoded: list[int]) -> None:
    before = checksums(catalogue.root)
    assert rehashed(catalogue) == {}
    # An older scene that arrives late is not the newest of its tiles.
    publish(catalogue, "late", NORTH[:30], "2024-06-01", "S2B_0")
    after_arrival = checksums(catalogue.root)
    assert rehashed(catalogue) == {}
    assert encoded == []
    assert checksums(catalogue.root) == after_arrival
    codes = [path for path in before if "codes-" in str(path.relative_to(catalogue.root))]
    assert codes and all(after_arrival[path] == before[path] for path in codes)


def test_only_what_changed_is_encoded_and_only_its_zone_published(
    catalogue: Catalogue, encoded: list[int]
) -> None:
    # The same acquisition, processed anew; and a newer one of a tile that is new.
    publish(catalogue, "reprocessed", SOUTH[:5], "2024-06-02", "S2A_1_N0511")
    new = tiles(1, Zone(33, "S"), row=3000)
    publish(catalogue, "newer", [*SOUTH[5:8], *new], "2024-06-03", "S2B_2")
    [(zone, row)] = rehashed(catalogue).items()
    assert zone == "UTM1920-33S"
    assert (row["tiles"], row["appeared"]) == (len(SOUTH) + 1, 1)
    assert sum(encoded) == 9
    found = scenes(catalogue)
    expected = {tile.id: ["S2A_1"] for tile in [*NORTH, *SOUTH[8:]]}
    expected |= {tile.id: ["S2A_1_N0511"] for tile in SOUTH[:5]}
    expected |= {tile.id: ["S2B_2"] for tile in [*SOUTH[5:8], *new]}
    assert found == expected
    before = checksums(catalogue.root)
    assert rehashed(catalogue) == {}
    assert checksums(catalogue.root) == before
