"""Sources that misbehave: every tile ends as undisturbed, or says what could not be read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from fault_server import Fault, FaultServer, fault_server
from two_blocks import (
    assert_same,
    index,
    ingest_two_blocks,
    observed,
    tiles_of,
    two_scenes,
)

from data_catalog.catalogue import Catalogue

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_scenes(tmp_path_factory.mktemp("faults") / "source").folder


@pytest.fixture(scope="module")
def undisturbed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    catalogue = Catalogue.create(tmp_path_factory.mktemp("undisturbed") / "catalogue")
    assert not ingest_two_blocks(catalogue, str(scenes)).failures
    frame, pixels = observed(catalogue)
    assert len(frame) == 128 and (pixels > 0).all()
    return catalogue


@pytest.fixture
def server(scenes: Path) -> Iterator[FaultServer]:
    # One of its own for each test: GDAL keeps what it read from an address.
    with fault_server(scenes) as running:
        yield running


def ingest(catalogue: Catalogue, server: FaultServer):
    return ingest_two_blocks(catalogue, f"{server.address}/catalog.json")


PASSING = {
    "latency": [Fault("*", "latency", 0.5, at_most=None)],
    "resets": [Fault("*.tif", "reset")],
    "truncated bodies": [Fault("*.tif", "truncated")],
    "429": [
        Fault("*.tif", "status", status=429),
        Fault("*.json", "status", status=429, at_most=1),
    ],
    "429 with Retry-After": [Fault("*.tif", "status", status=429, retry_after=1, at_most=1)],
    "503": [Fault("*.tif", "status"), Fault("*.json", "status", at_most=1)],
    "503 with Retry-After": [Fault("*.tif", "status", status=503, retry_after=1, at_most=1)],
    "now and then": [
        Fault("*.tif", "reset", 0.2, at_most=1),
        Fault("*.tif", "truncated", 0.2, at_most=1),
        Fault("*.tif", "status", 0.2, at_most=1),
        Fault("*.tif", "latency", 0.2, at_most=None),
    ],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_leaves_no_trace(
    faults: list[Fault], server: FaultServer, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    server.misbehave(*faults)
    assert ingest(catalogue, server).failures == {}
    met = {request.outcome for request in server.requests()}
    assert met > {"200"} and met - {"200", "206"}
    assert_same(catalogue, undisturbed)


LASTING = {
    "missing": Fault("*/east/B04.tif", "status", status=404, at_most=None),
    "refused": Fault("*/east/SCL.tif", "status", status=403, at_most=None),
    "busy": Fault("*/east/B11.tif", "status", at_most=None),
    "reset": Fault("*/east/B04.tif", "reset", at_most=None),
    "truncated": Fault("*/east/SCL.tif", "truncated", at_most=None),
}


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING.keys())
def test_a_fault_that_lasts_is_told_and_only_what_is_missing_is_read_again(
    fault: Fault, server: FaultServer, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    server.misbehave(fault)
    asset = Path(fault.pattern).stem
    check_east_is_missing(ingest(catalogue, server), catalogue, undisturbed, asset)
    check_rest_is_read(catalogue, server, undisturbed)


def test_a_corrupt_block_of_a_file_is_told_and_read_again_when_it_is_whole(
    scenes: Path, server: FaultServer, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    path = next(scenes.glob("*/east/B04.tif"))
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_1_0", "TIFF", bidx=1))
    noise = np.random.default_rng(1).bytes(size // 2)
    path.write_bytes(whole[:start] + noise + whole[start + len(noise) :])
    try:
        check_east_is_missing(ingest(catalogue, server), catalogue, undisturbed, "B04")
    finally:
        path.write_bytes(whole)
    check_rest_is_read(catalogue, server, undisturbed)


def test_a_damaged_file_that_is_not_tiled_is_told(
    scenes: Path, server: FaultServer, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    path = next(scenes.glob("*/east/B04.tif"))
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        profile, values = file.profile | {"driver": "GTiff", "tiled": False}, file.read()
    del profile["blockxsize"], profile["blockysize"]
    try:
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
        striped = path.read_bytes()
        damaged = np.random.default_rng(1).bytes(len(striped) // 2)
        path.write_bytes(striped[: len(striped) // 4] + damaged + striped[-len(striped) // 4 :])
        check_east_is_missing(ingest(catalogue, server), catalogue, undisturbed, "B04")
        path.write_bytes(striped)
        check_rest_is_read(catalogue, server, undisturbed)
    finally:
        path.write_bytes(whole)


def check_east_is_missing(run, catalogue: Catalogue, undisturbed: Catalogue, asset: str) -> None:
    """The western block is as undisturbed; the eastern is invalid, and the index tells why."""
    told = f"east, asset {asset}: "
    assert list(run.failures) == ["east"] and run.failures["east"].startswith(told)
    assert len(run.failures["east"]) > len(told) + 5
    made = index(catalogue, run.plan)
    assert len(made) == 128
    lost = made[made["state"] == "invalid"]
    assert set(lost.index) == {tile.id for tile in tiles_of("east")}
    assert lost["reason"].str.startswith(f"unreadable: {told}").all()
    frame, pixels = observed(catalogue)
    known, expected = observed(undisturbed)
    west = known["tile_id"].isin(frame["tile_id"]).to_numpy()
    assert set(frame["tile_id"]) == {tile.id for tile in tiles_of("west")}
    np.testing.assert_array_equal(pixels, expected[west])


def check_rest_is_read(catalogue: Catalogue, server: FaultServer, undisturbed: Catalogue) -> None:
    server.misbehave()
    assert list(ingest(catalogue, server).plan.scenes) == ["east"]
    assert {Path(r.path).parent.name for r in server.requests("*.tif")} == {"east"}
    assert_same(catalogue, undisturbed)
    server.misbehave()
    assert ingest(catalogue, server).plan.is_empty
    assert server.requests("*.tif") == []


def test_a_scene_that_stays_unreadable_costs_little_every_night(
    server: FaultServer, catalogue: Catalogue
) -> None:
    told = []
    for night in range(4):
        server.misbehave(Fault("*/east/SCL.tif", "status", status=404, at_most=None))
        assert list(ingest(catalogue, server).failures) == ["east"]
        told.append(catalogue.item_ids("tiles-sentinel-2-l2a"))
        requests = server.requests("*.tif")
        if night > 0:
            assert {r.path for r in requests} == {"/sentinel-2-l2a/east/SCL.tif"}
            assert len(requests) <= 12
    # The second night tells it of tiles that the western scene showed; further ones tell no more.
    assert len(told[0]) == 1 and len(told[1]) == 2
    assert told[1] == told[2] == told[3]
    folders = [path.name for path in (catalogue.root / "tiles-sentinel-2-l2a").iterdir()]
    assert sorted(folders) == sorted([*told[3], "collection.json"])
    assert not list((catalogue.root / ".plans").iterdir())


def wrong_projection(item: pystac.Item) -> None:
    item.properties |= {"proj:epsg": 32733, "proj:code": "EPSG:32733"}


def wrong_shape(item: pystac.Item) -> None:
    item.properties["proj:shape"] = [7, 7]
    for asset in item.assets.values():
        asset.extra_fields["proj:shape"] = [100_000, 3]


def wrong_transform(item: pystac.Item) -> None:
    item.properties["proj:transform"] = [60, 0, 0, 0, -60, 0]
    for asset in item.assets.values():
        asset.extra_fields["proj:transform"] = [10, 0, 200_000, 0, -10, 9_000_000]
        asset.extra_fields["proj:bbox"] = [0, 0, 1, 1]


def wrong_footprint(item: pystac.Item) -> None:
    around = shapely.geometry.shape(item.geometry).buffer(0.3)
    item.geometry, item.bbox = shapely.geometry.mapping(around), list(around.bounds)


@pytest.mark.parametrize(
    "lie",
    [wrong_projection, wrong_shape, wrong_transform, wrong_footprint],
    ids=lambda f: f.__name__,
)
def test_an_item_that_lies_about_its_file_changes_no_pixel(
    lie, tmp_path: Path, catalogue: Catalogue, undisturbed: Catalogue
) -> None:
    source = two_scenes(tmp_path / "lying", lie)
    assert ingest_two_blocks(catalogue, str(source.folder)).failures == {}
    assert_same(catalogue, undisturbed)
