import multiprocessing
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely
from ingesting import (
    S2,
    TILE,
    add_granule,
    plan,
    run,
)
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog import ingest
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.grid import Tile
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations, read_tiles

pytestmark = pytest.mark.usefixtures("impatient")


def test_an_interrupted_run_goes_on_where_it_stopped(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    with pytest.raises(CatalogueError, match="1 of 1 blocks are not read yet"):
        publish_segment(catalogue, planned)
    assert ingest_block(folder, planned.block_ids[0]).seconds > 0
    for path in source.folder.rglob("*.tif"):
        path.unlink()
    again = plan(catalogue, source)
    assert again.segment_id == planned.segment_id
    done = ingest_block(again.save(catalogue), again.block_ids[0])
    assert (done.valid, done.invalid, done.seconds) == (2, 0, 0)
    published = publish_segment(catalogue, again)
    assert publish_segment(catalogue, again) == published
    assert len(catalogue.items(f"tiles-{S2}")) == 1


def test_runs_that_follow_one_plan_read_and_publish_it_once(
    catalogue: Catalogue, source: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    calls: list[str] = []

    def slowly(name: str) -> None:
        original = getattr(ingest, name)

        def call(*args):
            calls.append(name)
            threading.Event().wait(0.3)  # the other run catches up
            return original(*args)

        monkeypatch.setattr(ingest, name, call)

    slowly("read_planned_block")
    slowly("write_geoparquet")
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(ingest_block, [folder] * 2, planned.block_ids * 2))
        published = list(pool.map(publish_segment, [catalogue] * 2, [planned] * 2))
    assert [report.valid for report in reports] == [2, 2]
    assert published == [planned.segment_id] * 2
    assert calls == ["read_planned_block", "write_geoparquet"]
    assert not list((catalogue.root / ".plans").iterdir())


def test_a_catalogue_whose_making_was_killed_is_made(tmp_path: Path) -> None:
    (tmp_path / ".catalog.json.0123.staged").touch()
    catalogue = Catalogue.open_or_create(tmp_path)
    catalogue.begin()
    assert Catalogue.open(tmp_path).collections() == []


@pytest.mark.parametrize("damage", ["shard lost", "shard cut off", "pixels lost"])
def test_what_a_crash_damaged_is_not_published_and_is_read_anew(
    catalogue: Catalogue, source: TinySource, damage: str
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    ingest_block(planned.save(catalogue), planned.block_ids[0])
    pixels = catalogue.root / f"tiles-{S2}" / planned.segment_id / "pixels.zarr"
    if damage == "shard cut off":
        for path in (pixels / "reflectance" / "c").rglob("0"):
            if path.is_file():
                path.write_bytes(b"")
    else:
        shutil.rmtree(pixels / "reflectance" / "c" if damage == "shard lost" else pixels)
    with pytest.raises(CatalogueError, match="ingest again"):
        publish_segment(catalogue, planned)
    assert catalogue.collections() == []
    run(catalogue, plan(catalogue, source))
    observed = current_observations(catalogue, S2)
    assert not np.isnan(read_tiles(catalogue, S2, observed, ["red"])).any()


def _ingest(folder: Path, block_id: str) -> int:
    return ingest_block(folder, block_id).valid


def test_processes_write_blocks_of_one_segment_side_by_side(
    catalogue: Catalogue, source: TinySource
) -> None:
    west, _, _, north = TILE.bounds
    side = 12 * 192
    red = noise((side, side), 3)
    source.sentinel_2(
        "wide",
        TILE.zone.epsg,
        west,
        north,
        {"B04": (red, 10)},
        np.full((side // 2, side // 2), SCL_CLEAR, np.uint8),
    )
    tiles = [Tile(TILE.zone, TILE.column + i, TILE.row - j) for i in range(12) for j in range(12)]
    area = shapely.MultiPoint([tile.centre for tile in tiles])
    planned = plan(catalogue, source, area=area, bands=["red"])
    folder = planned.save(catalogue)
    assert len(planned.block_ids) >= 4
    jobs = [(folder, block_id) for block_id in planned.block_ids]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.starmap_async(_ingest, jobs[::2])
        here = [_ingest(*job) for job in jobs[1::2]]
        assert sum(there.get(120)) + sum(here) == 144
    publish_segment(catalogue, planned)
    observed = current_observations(catalogue, S2)
    pixels = read_tiles(catalogue, S2, observed, ["red"])
    by_id = dict(zip(observed["tile_id"], pixels[:, 0], strict=True))
    for tile in tiles:
        x, y = 192 * (tile.column - TILE.column), 192 * (TILE.row - tile.row)
        expected = (red[y : y + 192, x : x + 192].astype(int) - 1000).clip(1) * 1e-4
        np.testing.assert_allclose(by_id[tile.id], expected, rtol=1e-6)
