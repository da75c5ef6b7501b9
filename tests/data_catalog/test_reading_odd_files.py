"""Files that are other than their items say, or that hold less than their masks promise."""

import asyncio
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from ingesting import MOMENT, S2, TILE, add_granule, index_of, plan, run
from rasterio.transform import from_origin
from tiny_source import SCL_CLEAR, TinySource, noise, write_cog

from data_catalog.assets import AssetWindow, read_assets
from data_catalog.catalogue import Catalogue
from data_catalog.errors import ReadError
from data_catalog.rasters import _BlockCache
from data_catalog.search_areas import _groups
from data_catalog.sensors import SceneBand

pytestmark = pytest.mark.usefixtures("impatient")

CENTRE = "{:f},{:f}".format(*TILE.centre)


def window(path: Path, nodata: float | None = 0) -> AssetWindow:
    band = SceneBand("B04", str(path), 1e-4, 0.0, nodata)
    return AssetWindow("scene", band, "generic", TILE.zone, TILE.bounds, 10)


def test_a_file_on_the_other_side_of_the_earth_fails_alone(tmp_path: Path) -> None:
    west, _, _, north = TILE.bounds
    near, far = tmp_path / "near.tif", tmp_path / "far.tif"
    write_cog(near, noise((192, 192), 1), TILE.zone.epsg, west, north, 10)
    write_cog(far, noise((192, 192), 1), 2193, 1_600_000, 5_400_000, 10)
    unseen = tmp_path / "unseen.tif"
    globe = "+proj=ortho +lat_0=-50 +lon_0=-171"
    with rasterio.open(
        unseen, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint16", crs=globe,
        transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.write(noise((9, 9), 1), 1)
    elsewhere, error, found = read_assets([window(far), window(unseen), window(near)])
    assert not isinstance(elsewhere, ReadError)
    assert not elsewhere.any()
    assert isinstance(error, ReadError)
    assert str(error).startswith("scene, asset B04: Reprojection failed")
    np.testing.assert_array_equal(found, noise((192, 192), 1))


def test_an_address_that_is_none_fails_alone(tmp_path: Path) -> None:
    [error] = read_assets([window("http://[half/B04.tif")])  # type: ignore[arg-type]
    assert isinstance(error, ReadError)
    assert str(error).startswith("scene, asset B04: ")


@pytest.mark.parametrize("nodata", [0, None])
def test_what_the_file_calls_nodata_is_not_observed(tmp_path: Path, nodata: float | None) -> None:
    west, _, _, north = TILE.bounds
    values = noise((192, 192), 1).astype(np.int16)
    values[50:60] = -9999
    path = tmp_path / "own.tif"
    write_cog(path, values, TILE.zone.epsg, west, north, 10)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.nodata = -9999
    [found] = read_assets([window(path, nodata)])
    assert not isinstance(found, ReadError)
    unseen = np.isnan(found) if nodata is None else found == nodata
    np.testing.assert_array_equal(unseen, values == -9999)
    np.testing.assert_array_equal(found[~unseen], values[~unseen])


@pytest.mark.parametrize("composite", ["best", "median"])
def test_a_tile_whose_bands_are_empty_is_not_valid(
    catalogue: Catalogue, source: TinySource, composite: str
) -> None:
    west, _, _, north = TILE.bounds
    red = noise((312, 504), 1)
    red[:, :252] = 0
    bands = {"B04": (red, 10), "B11": (red[::2, ::2].copy(), 20)}
    scl = np.full((156, 252), SCL_CLEAR, np.uint8)
    source.sentinel_2("odd", TILE.zone.epsg, west - 600, north + 600, bands, scl, MOMENT)
    segment_id = run(catalogue, plan(catalogue, source, composite=composite))
    index = index_of(catalogue, segment_id).set_index("tile_id")
    assert index.loc[TILE.id, "state"] == "invalid"
    assert index.loc[TILE.id, "reason"].startswith("not observed")
    assert (index["state"] == "valid").sum() == 1


def test_another_pass_stands_in_for_one_whose_bands_are_empty(
    catalogue: Catalogue, source: TinySource
) -> None:
    west, _, _, north = TILE.bounds
    nothing = np.zeros((312, 504), np.uint16)
    bands = {"B04": (nothing, 10), "B11": (nothing[::2, ::2].copy(), 20)}
    scl = np.full((156, 252), SCL_CLEAR, np.uint8)
    moment = MOMENT + timedelta(days=5)
    source.sentinel_2("empty", TILE.zone.epsg, west - 600, north + 600, bands, scl, moment)
    add_granule(source, "older")
    segment_id = run(catalogue, plan(catalogue, source, area=CENTRE))
    assert [list(used) for used in index_of(catalogue, segment_id)["source_scenes"]] == [["older"]]


def test_a_median_of_clouds_alone_is_not_valid(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "cloudy", clear=False)
    options = {"composite": "median", "minimum_clear": 0.0, "area": CENTRE}
    segment_id = run(catalogue, plan(catalogue, source, **options))
    assert index_of(catalogue, segment_id)["state"].tolist() == ["invalid"]
    assert catalogue.item_ids(f"tiles-{S2}") == [segment_id]


def test_a_bad_block_does_not_fail_a_window_that_only_waits_for_a_good_one() -> None:
    async def fetch(places: list[tuple[int, int]]) -> list[np.ndarray]:
        await asyncio.sleep(0.01)
        if (1, 0) in places:
            raise ReadError("the second block is bad")
        return [np.ones((2, 2)) for _ in places]

    async def both() -> list[object]:
        cache = _BlockCache(1000)
        first = cache.get("a.tif", [(0, 0), (1, 0)], fetch)
        second = cache.get("a.tif", [(0, 0)], fetch)
        return await asyncio.gather(first, second, return_exceptions=True)

    failed, found = asyncio.run(both())
    assert isinstance(failed, ReadError)
    assert isinstance(found, list) and len(found) == 1


def test_no_request_is_for_no_ground() -> None:
    long = shapely.Point(0, 0).buffer(1, quad_segs=200)
    assert shapely.get_num_coordinates(long) > 300
    assert [len(group) for group in _groups([long, shapely.box(0, 0, 1, 1)])] == [1, 1]
