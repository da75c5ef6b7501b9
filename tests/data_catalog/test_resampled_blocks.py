"""Blocks of scenes that do not lie on the tile grid: mosaics and masks."""

import numpy as np
import pytest
from placed_scenes import CASES, Case, field, placed, warped
from shapely.geometry import box
from tiny_source import SCL_CLEAR, SCL_CLOUD, TinySource

from data_catalog.grid import FALSE_NORTHING_SOUTH
from data_catalog.reading import read_block
from data_catalog.sensors import get_sensor
from data_catalog.source_catalogue import open_source

S2, LANDSAT = get_sensor("sentinel-2-l2a"), get_sensor("landsat-c2-l2")


def test_a_mosaic_of_the_neighbouring_zone_is_the_first_scene_filled_with_the_second(
    source: TinySource,
) -> None:
    """Two granules of one pass, each cut by the swath's slanted edge, that overlap."""
    case = CASES["neighbour north"]
    at = placed(case)
    at = at._replace(shape=(at.shape[0] // 2 * 2, at.shape[1] // 2 * 2))
    rows, columns = np.mgrid[: at.shape[0] // 2, : at.shape[1] // 2] * 2
    slant = columns + 0.3 * rows
    hrefs = []
    for name, seen in (("a", slant < 0.7 * at.shape[1]), ("b", slant > 0.5 * at.shape[1])):
        fine = seen.repeat(2, 0).repeat(2, 1)
        red = np.where(fine, field("smooth", at.shape) + 500 * (name == "b"), 0).astype(np.uint16)
        swir = np.where(seen, field("smooth", seen.shape), 0).astype(np.uint16)
        scl = np.where(seen, SCL_CLEAR, 0).astype(np.uint8)
        bands = {"B04": (red, 10), "B11": (swir, 20)}
        corner = int(at.west), int(at.north)
        source.sentinel_2(name, case.epsg, *corner, bands, scl, s2__mgrs_tile=f"31XY{name.upper()}")
        hrefs.append({k: str(source.folder / S2.id / name / f"{k}.tif") for k in ("B04", "B11")})
    origin = open_source(str(source.write()))
    scenes = origin.search(S2, box(-180, -80, 180, 84), "../..")
    tile = case.tile
    observed = read_block(tile.block, {tile: scenes}, S2, ("red", "swir16"), origin.profile, 0.6)
    assert observed.tiles[0].source_scenes == ["a", "b"]
    found = observed.pixels[tile.block.position(tile)].astype(int)
    for place, (key, size, times) in enumerate((("B04", 10, 1), ("B11", 20, 2))):
        parts = [warped(one[key], tile, size, "cubic") for one in hrefs]
        parts = [np.where(part > 0, np.maximum(np.rint(part) - 1000, 1), 0) for part in parts]
        expected = np.where(parts[0] > 0, *parts).repeat(times, 0).repeat(times, 1)
        assert (expected > 0).all()
        # To the number that rounding may add; at the seam either scene may have the pixel.
        close = np.abs(found[place] - expected) <= 1
        assert close.mean() > 0.998


def test_masks_are_taken_from_the_nearest_pixel(source: TinySource) -> None:
    """Classes blended by resampling would be other classes: 4 and 9 make 6 or 7."""
    case = Case(CASES["Landsat south, northern code"].tile, 32656, 30, 15)
    at = placed(case)
    rng = np.random.default_rng(5)
    cloudy = rng.random(at.shape) < 0.3
    qa = np.where(cloudy, 1 << 3, 1 << 6).astype(np.uint16)
    red = np.full(at.shape, 20_000, np.uint16)
    bands = {"red": (red, 30), "qa_pixel": (qa, 30)}
    corner = int(at.west), int(at.north)
    assert corner[1] < 0 < corner[1] + FALSE_NORTHING_SOUTH
    source.scene(
        "scene", LANDSAT.id, 32656, *corner, bands, platform="landsat-9", landsat__wrs_path="89"
    )
    origin = open_source(str(source.write()))
    scenes = origin.search(LANDSAT, box(-180, -80, 180, 84), "../..")
    tile = case.tile
    observed = read_block(tile.block, {tile: scenes}, LANDSAT, ("red",), origin.profile, 0.5)
    # Half a pixel off, the centre lies on a corner: any of its four pixels is as near.
    rows, columns = np.rint(at.rows).astype(int), np.rint(at.columns).astype(int)
    shares = [1 - cloudy[rows - i, columns - j].mean() for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert observed.tiles[0].clear_fraction in [pytest.approx(share, abs=1e-9) for share in shares]


def test_clear_share_of_a_neighbouring_scene_is_that_of_its_nearest_classes(
    source: TinySource,
) -> None:
    case = CASES["neighbour south"]
    coarse = Case(case.tile, case.epsg, 20)
    at = placed(coarse)
    scl = np.where(np.random.default_rng(6).random(at.shape) < 0.25, SCL_CLOUD, SCL_CLEAR)
    red = np.full((2 * at.shape[0], 2 * at.shape[1]), 3000, np.uint16)
    corner = int(at.west), int(at.north)
    source.sentinel_2("scene", case.epsg, *corner, {"B04": (red, 10)}, scl.astype(np.uint8))
    origin = open_source(str(source.write()))
    scenes = origin.search(S2, box(-180, -80, 180, 84), "../..")
    tile = case.tile
    observed = read_block(tile.block, {tile: scenes}, S2, ("red",), origin.profile, 0.5)
    nearest = scl[at.rows.astype(int), at.columns.astype(int)]
    clear = float((nearest == SCL_CLEAR).mean())
    assert observed.tiles[0].clear_fraction == pytest.approx(clear, abs=0.01)
