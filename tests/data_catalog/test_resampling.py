"""Assets on the tile grid, compared with GDAL's warped view of the whole file and with formulas.

``read_assets`` has GDAL place pixels to within 0.01 of a pixel. The steepest slope of the smooth
field is 2π · 1000 / 40 = 157 a pixel, so it may differ by 2.3 at a diagonal 0.01; noise of up to
12,000 may differ by a few times 120. Measured, it is ten times less: UTM is nearly straight over a
tile. A shift of a hundredth of a pixel would show in every one of these limits.
"""

from pathlib import Path

import numpy as np
import pytest
from placed_scenes import (
    CASES,
    Case,
    field,
    kernel,
    placed,
    read,
    tile_at,
    warped,
    waves,
    write,
)

from data_catalog.grid import Tile, Zone

SMOOTH, NOISY = 0.2, 15.0
"""Largest difference from the exact kernel, of numbers around 3000 and up to 12,000."""


@pytest.mark.parametrize("kind", ["smooth", "noisy"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_resampled_numbers_are_those_of_the_kernel_at_the_exact_place(
    tmp_path: Path, case: Case, kind: str
) -> None:
    at = placed(case)
    values = field(kind, at.shape)
    href = write(tmp_path / "a.tif", values, case.epsg, at.west, at.north, case.resolution)
    limit = SMOOTH if kind == "smooth" else NOISY
    for how in ("bilinear", "cubic"):
        found = read(href, case.tile.zone, case.tile.bounds, case.resolution, how)
        assert np.abs(found - kernel(values, at, how)).max() < limit
        assert np.abs(found - warped(href, case.tile, case.resolution, how)).max() < limit
    if kind == "smooth":
        # Cubic through samples of a wave of 40 pixels: the rest is its own small error.
        assert np.abs(found - waves(at.columns, at.rows)).max() < SMOOTH + 0.05


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nearest_takes_the_pixel_that_holds_the_centre(tmp_path: Path, case: Case) -> None:
    at = placed(case)
    values = np.random.default_rng(2).permutation(at.shape[0] * at.shape[1]).reshape(at.shape)
    values = (values + 1).astype(np.float32)
    href = write(tmp_path / "a.tif", values, case.epsg, at.west, at.north, case.resolution)
    found = read(href, case.tile.zone, case.tile.bounds, case.resolution, "nearest")
    rows, columns = np.divmod(np.argsort(values, None)[found.astype(int) - 1], at.shape[1])
    # To within 0.01 of a pixel at pixels' edges: half a pixel off, Landsat's centres lie on them.
    assert np.abs(columns + 0.5 - at.columns).max() <= 0.51
    assert np.abs(rows + 0.5 - at.rows).max() <= 0.51


@pytest.mark.parametrize("name", ["neighbour north", "neighbour near the pole", "Landsat north"])
def test_a_tile_has_the_same_numbers_in_whatever_window_it_is_read(
    tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    at = placed(case, margin=400)
    values = field("noisy", at.shape)
    href = write(tmp_path / "a.tif", values, case.epsg, at.west, at.north, case.resolution)
    west, south, east, north = case.tile.bounds
    alone = read(href, case.tile.zone, case.tile.bounds, case.resolution, "cubic")
    for wide in ((west, south, east + 1920, north), (west - 1920, south - 1920, east, north)):
        found = read(href, case.tile.zone, wide, case.resolution, "cubic")
        left, side = (west - wide[0]) // case.resolution, alone.shape[0]
        # Each is within 0.01 of a pixel of the exact place; a kernel widened by 5 % differs by 600.
        assert np.abs(found[:side, left : left + side] - alone).max() < 4 * NOISY


@pytest.mark.parametrize("name", ["neighbour north", "neighbour near the pole", "Landsat north"])
def test_every_pixel_of_a_block_lies_within_a_hundredth(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    corner = case.tile.bounds
    at = placed(case, margin=1700)
    values = field("smooth", at.shape)
    href = write(tmp_path / "a.tif", values, case.epsg, at.west, at.north, case.resolution)
    bounds = corner[0] - 7 * 1920, corner[1] - 1920, corner[2], corner[3]
    found = read(href, case.tile.zone, bounds, case.resolution, "cubic")
    exact = kernel(values, at, "cubic")
    side = len(exact)
    assert np.abs(found[:side, -side:] - exact).max() < 1.6


@pytest.mark.parametrize("how", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("name", ["neighbour north", "neighbour south", "Landsat north"])
@pytest.mark.parametrize("edge", ["west", "north", "diagonal"])
def test_what_lies_beyond_an_edge_is_nodata(tmp_path: Path, name: str, edge: str, how: str) -> None:
    case = CASES[name]
    at = placed(case)
    values = field("smooth", at.shape)
    west, north = at.west, at.north
    middle = at.shape[0] // 2
    if edge == "west":
        values, west = values[:, middle:], west + middle * case.resolution
    elif edge == "north":
        values, north = values[middle:], north - middle * case.resolution
    else:
        rows, columns = np.mgrid[: at.shape[0], : at.shape[1]]
        values = np.where(columns + 0.3 * rows > 0.65 * at.shape[1], values, 0).astype(np.float32)
    href = write(tmp_path / "a.tif", values, case.epsg, west, north, case.resolution)
    found = read(href, case.tile.zone, case.tile.bounds, case.resolution, how)
    expected = warped(href, case.tile, case.resolution, how)
    assert 0.2 < (expected == 0).mean() < 0.8
    if how == "nearest" or name == "Landsat north":
        same = (found == 0) == (expected == 0)
        # A centre within 0.01 of a pixel's edge may fall on either side.
        assert same.mean() > 0.999
    observed = (found > 0) & (expected > 0)
    assert np.abs(found - expected)[observed].max() < (160 if how == "nearest" else 2 * SMOOTH)
    assert ((found > 0) == (expected > 0)).mean() > 0.999
    # A number next to nodata is made of observed numbers only: never drawn towards nodata.
    assert found[observed].min() > 1900
    assert not found[found <= 0].any()


@pytest.mark.parametrize("nodata", [None, float("nan"), -32768.0])
def test_nodata_that_is_not_zero(tmp_path: Path, nodata: float | None) -> None:
    case = CASES["neighbour north"]
    at = placed(case)
    values = field("smooth", at.shape)[:, : at.shape[1] // 2].copy()
    if nodata is not None:
        values[:20] = nodata
    href = write(tmp_path / "a.tif", values, case.epsg, at.west, at.north, 10, nodata)
    found = read(href, case.tile.zone, case.tile.bounds, 10, "cubic", nodata)
    outside = at.columns > values.shape[1]
    assert (
        np.isnan(found[outside]).all() if nodata != -32768.0 else (found[outside] == nodata).all()
    )
    inside = at.columns < values.shape[1] - 2
    inside &= at.rows > 22
    assert np.abs(found - waves(at.columns, at.rows))[inside].max() < SMOOTH + 0.05


@pytest.mark.parametrize("zone", [Zone(32, "N"), Zone(56, "S")], ids=str)
@pytest.mark.parametrize("how", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("moved", [(0, 0), (-90, 0), (70, -60), (400, 400)])
def test_in_the_own_zone_pixels_are_copied_and_nodata_beyond_the_edge(
    tmp_path: Path, zone: Zone, how: str, moved: tuple[int, int]
) -> None:
    tile = Tile(zone, 174, 1951)
    values = field("noisy", (192, 192)).astype(np.uint16)
    west, north = tile.bounds[0] + 10 * moved[0], tile.bounds[3] + 10 * moved[1]
    href = write(tmp_path / "a.tif", values, zone.epsg, west, north, 10)
    expected = np.zeros((192, 192), np.uint16)
    padded = np.pad(values, 192 * 2)
    left, top = 384 - moved[0], 384 + moved[1]
    expected = padded[top : top + 192, left : left + 192] if max(moved) < 192 else expected
    np.testing.assert_array_equal(read(href, zone, tile.bounds, 10, how), expected)


@pytest.mark.parametrize("times", [2, 3, 6])
@pytest.mark.parametrize("how", ["bilinear", "cubic"])
def test_a_finer_asset_is_averaged(tmp_path: Path, times: int, how: str) -> None:
    tile = Tile(Zone(56, "S"), 174, 1951)
    values = field("noisy", (232, 232))
    values[100:140, 60:100] = 0
    corner = tile.bounds[0] - 200, tile.bounds[3] + 200
    href = write(tmp_path / "a.tif", values, tile.zone.epsg, *corner, 10)
    side = 192 // times
    bounds = tile.bounds[0], tile.bounds[3] - 10 * times * side, tile.bounds[2], tile.bounds[3]
    found = read(href, tile.zone, bounds, 10 * times, how)
    blocks = values[20:212, 20:212].reshape(side, times, side, times).astype(float)
    seen = (blocks > 0).sum((1, 3))
    means = np.where(seen, blocks.sum((1, 3)) / np.maximum(seen, 1), 0)
    np.testing.assert_allclose(found, means, rtol=1e-6)
    nearest = read(href, tile.zone, bounds, 10 * times, "nearest")
    assert np.isin(nearest, values).all()


def test_a_finer_asset_off_the_grid_is_averaged_by_area(tmp_path: Path) -> None:
    tile = Tile(Zone(32, "N"), 360, 2778)
    values = field("noisy", (233, 233))
    corner = tile.bounds[0] - 205, tile.bounds[3] + 205
    href = write(tmp_path / "a.tif", values, tile.zone.epsg, *corner, 10)
    found = read(href, tile.zone, tile.bounds, 30, "cubic")
    weights = np.array([0.5, 1, 1, 0.5]) / 3
    windows = np.lib.stride_tricks.sliding_window_view(values[20:], (4, 4))[::3, 20::3][:64, :64]
    expected = np.einsum("yxij,i,j->yx", windows.astype(float), weights, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_finer_asset_in_degrees_is_averaged(tmp_path: Path) -> None:
    tile = tile_at(9.3, 60.0)
    west, south, east, north = tile.footprint.bounds
    size = 1e-5
    shape = int((north - south + 0.002) / size), int((east - west + 0.002) / size)
    values = np.random.default_rng(3).integers(1, 3, shape).astype(np.uint8) * 100
    href = write(tmp_path / "a.tif", values, 4326, west - 0.001, north + 0.001, size)
    found = read(href, tile.zone, tile.bounds, 30, "bilinear")
    # About 27 x 54 numbers of 100 or 200 to a pixel: their mean spreads by 1.3, not by 50.
    assert abs(found.mean() - 150) < 1
    assert found.std() < 3


def geographic_maps() -> dict[str, tuple[float, float, float]]:
    """West, east and pixel size in degrees of maps that hold ground beside the antimeridian."""
    return {
        "west of it": (177.0, 180.0, 1 / 1200),
        "east of it": (-180.0, -177.0, 1 / 1200),
        "over it": (178.5, 181.5, 1 / 1200),
        "over it, negative": (-181.5, -178.5, 1 / 1200),
        "globe": (-180.0, 180.0, 1 / 120),
        "globe from 0": (0.0, 360.0, 1 / 120),
    }


@pytest.mark.parametrize("name", geographic_maps())
@pytest.mark.parametrize("lon", [179.9, 179.999, -179.999, -179.9])
def test_a_map_in_degrees_is_read_on_both_sides_of_the_antimeridian(
    tmp_path: Path, name: str, lon: float
) -> None:
    west, east, size = geographic_maps()[name]
    shape = round(1.0 / size), round((east - west) / size)
    values = np.random.default_rng(4).integers(1, 255, shape).astype(np.uint8)
    href = write(tmp_path / "map.tif", values, 4326, west, 52.5, size)
    tile = tile_at(lon, 52.0)
    found = read(href, tile.zone, tile.bounds, 10, "nearest")
    x, y = np.meshgrid(
        np.arange(tile.bounds[0] + 5, tile.bounds[2], 10),
        np.arange(tile.bounds[3] - 5, tile.bounds[1], -10),
    )
    lons, lats = tile.zone.unproject(x, y)
    assert (np.ptp(lons) > 180) == (abs(lon) > 179.99)  # whether the tile lies on both sides
    columns, rows = (lons - west) % 360 / size, (52.5 - lats) / size
    inside = columns < shape[1]
    expected = np.zeros(x.shape, np.uint8)
    expected[inside] = values[rows[inside].astype(int), columns[inside].astype(int)]
    sure = (np.abs(columns - np.round(columns)) > 0.01) & (np.abs(rows - np.round(rows)) > 0.01)
    np.testing.assert_array_equal(found[sure], expected[sure])
    assert sure.mean() > 0.9
