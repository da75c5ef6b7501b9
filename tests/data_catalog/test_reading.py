import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from tiny_source import SCL_CLEAR, SCL_CLOUD, TinySource, noise

from data_catalog.assets import AssetWindow, read_assets
from data_catalog.errors import ReadError
from data_catalog.grid import BLOCK_TILES, FALSE_NORTHING_SOUTH, Tile, Zone
from data_catalog.http_server import serve_folder
from data_catalog.reading import BlockObservations, read_block
from data_catalog.redaction import redacted
from data_catalog.sensors import SceneBand, get_sensor
from data_catalog.source_catalogue import open_source

S2, LANDSAT = get_sensor("sentinel-2-l2a"), get_sensor("landsat-c2-l2")
NORTH, SOUTH = Zone(32, "N"), Zone(56, "S")
MOMENT = datetime(2024, 6, 18, 10, 16, tzinfo=UTC)
BANDS = ("red", "swir16")


pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def served(source: TinySource) -> Iterator[str]:
    source.folder.mkdir(parents=True)
    with serve_folder(source.folder) as address:
        yield address


def granule_corner(tile: Tile, margin: int = 300) -> tuple[int, int]:
    """A north-western corner on Sentinel-2's lattice, beyond the tile's block."""
    west, _, _, north = tile.bounds
    return west - margin, north + margin


def add_granule(
    source: TinySource, scene_id: str, tile: Tile, seed: int = 1, tiles: int = 1, **more
) -> None:
    """A granule around a square of tiles south-east of ``tile``, of pure noise, all clear."""
    west, north = granule_corner(tile)
    side = (tiles * tile.size + 600) // 20 * 2
    scl = more.pop("scl", np.full((side // 2, side // 2), SCL_CLEAR, np.uint8))
    bands = {"B04": (noise((side, side), seed), 10), "B11": (noise((side // 2,) * 2, seed + 9), 20)}
    epsg = more.pop("epsg", tile.zone.epsg)
    source.sentinel_2(scene_id, epsg, west, north, bands, scl, **more)


def read(
    source: TinySource, tiles: list[Tile], address: str = "", minimum_clear: float = 0.6
) -> BlockObservations:
    path = source.write()
    origin = open_source(f"{address}/catalog.json" if address else str(path))
    scenes = origin.search(S2, box(-180, -80, 180, 84), "../..")
    wanted = dict.fromkeys(tiles, scenes)
    return read_block(tiles[0].block, wanted, S2, BANDS, origin.profile, minimum_clear)


@pytest.mark.parametrize(
    "tile", [Tile(NORTH, 360, 2778), Tile(SOUTH, 174, 1951)], ids=["north", "south"]
)
@pytest.mark.parametrize(("baseline", "offset"), [("05.11", 1000), ("02.12", 0)])
def test_a_sentinel_2_tile_is_an_exact_copy_in_its_own_zone(
    source: TinySource, served: str, tile: Tile, baseline: str, offset: int
) -> None:
    add_granule(source, "granule", tile, baseline=baseline)
    observed = read(source, [tile], served)

    side = (tile.size + 600) // 10
    window = slice(30, 30 + 192)
    red = noise((side, side), 1)[window, window].astype(int)
    swir = noise((side // 2, side // 2), 10).repeat(2, 0).repeat(2, 1)[window, window].astype(int)
    expected = np.maximum(np.stack([red, swir]) - offset, 1)
    assert [o.state for o in observed.tiles] == ["valid"]
    np.testing.assert_array_equal(observed.pixels[tile.block.position(tile)], expected)
    others = np.delete(np.arange(64), tile.block.position(tile))
    assert not observed.pixels[others].any()


def test_every_tile_of_a_block_lies_at_its_position(source: TinySource) -> None:
    first = Tile(SOUTH, 176, 1960)
    tiles = [Tile(SOUTH, 176 + i, 1960 + j) for i in range(8) for j in range(8)]
    add_granule(source, "granule", first, tiles=BLOCK_TILES)
    observed = read(source, tiles)
    assert all(o.state == "valid" and o.clear_fraction == 1 for o in observed.tiles)
    side = (BLOCK_TILES * 1920 + 600) // 10
    red = np.maximum(noise((side, side), 1).astype(int) - 1000, 1)
    for tile in tiles:
        top, left = 30 + 192 * (tile.row - 1960), 30 + 192 * (tile.column - 176)
        place = observed.pixels[tile.block.position(tile), 0]
        np.testing.assert_array_equal(place, red[top : top + 192, left : left + 192])


def test_a_scene_of_the_neighbouring_zone_is_reprojected(source: TinySource) -> None:
    tile = Tile(NORTH, 120, 2604)  # close to the western edge of zone 32
    lon, lat = tile.centre
    easting, northing = Zone(31, "N").project(lon, lat)
    west, north = int(easting) // 60 * 60 - 3000, int(northing) // 60 * 60 + 3000
    x = np.arange(600)[None, :] + np.zeros((600, 1))
    ramp = (3000 + 10 * x).astype(np.uint16)
    scl = np.full((300, 300), SCL_CLEAR, np.uint8)
    bands = {"B04": (ramp, 10), "B11": (ramp[::2, ::2], 20)}
    source.sentinel_2("next-door", 32631, west, north, bands, scl)
    observed = read(source, [tile])
    assert observed.tiles[0].state == "valid"
    pixels = observed.pixels[tile.block.position(tile), 0]
    column, row = 130, 40
    place = NORTH.unproject(tile.bounds[0] + 10 * column + 5, tile.bounds[3] - 10 * row - 5)
    there = Zone(31, "N").project(*place)[0]
    assert abs(int(pixels[row, column]) - (2000 + 10 * ((there - west) / 10 - 0.5))) <= 10


def test_the_own_zone_comes_first_in_a_mosaic(source: TinySource) -> None:
    tile = Tile(NORTH, 120, 2604)
    west, north = granule_corner(tile)
    scl = np.full((126, 126), SCL_CLEAR, np.uint8)
    own = {"B04": (np.full((252, 252), 3000, np.uint16), 10)}
    own["B11"] = (np.full((126, 126), 3000, np.uint16), 20)
    source.sentinel_2("z-own", tile.zone.epsg, west, north, own, scl)
    lon, lat = tile.centre
    easting, northing = Zone(31, "N").project(lon, lat)
    other = {k: (np.full((600, 600), 5000, np.uint16), 10) for k in ("B04", "B11")}
    x, y = int(easting) // 60 * 60 - 3000, int(northing) // 60 * 60 + 3000
    source.sentinel_2("a-other", 32631, x, y, other, np.full((300, 300), SCL_CLEAR, np.uint8))
    observed = read(source, [tile])
    assert observed.tiles[0].source_scenes == ["z-own"]
    assert set(observed.tiles[0].considered_scenes) == {"a-other", "z-own"}


def test_adjoining_scenes_of_one_pass_are_mosaicked(source: TinySource) -> None:
    tile = Tile(NORTH, 360, 2778)
    west, north = granule_corner(tile)
    for name, left, number in (("east", 1260, 4000), ("west", 0, 3000)):
        # 252 pixels over the tile; the western scene ends in the middle, the eastern goes on.
        full = np.full((252, 126), number, np.uint16)
        bands = {"B04": (full, 10), "B11": (full[::2, ::2], 20)}
        scl = np.full((126, 63), SCL_CLEAR, np.uint8)
        source.sentinel_2(name, tile.zone.epsg, west + left, north, bands, scl)
    observed = read(source, [tile])
    only = observed.tiles[0]
    assert (only.state, only.clear_fraction) == ("valid", 1.0)
    assert set(only.source_scenes) == {"east", "west"}
    red = observed.pixels[tile.block.position(tile), 0]
    assert (red[:, :96] == 2000).all() and (red[:, 96:] == 3000).all()


def cloudy(share: float, side: int = 126) -> np.ndarray:
    scl = np.full((side, side), SCL_CLEAR, np.uint8)
    scl[15 : 15 + round(96 * share)] = SCL_CLOUD
    return scl


def test_the_clearest_pass_wins_and_ties_go_to_the_newest(source: TinySource) -> None:
    tile = Tile(NORTH, 360, 2778)
    for day, share in enumerate((0.5, 0.25, 0.0, 0.0, 0.25)):
        moment = MOMENT + timedelta(days=day)
        add_granule(source, f"day-{day}", tile, seed=day, scl=cloudy(share), moment=moment)
    observed = read(source, [tile])
    only = observed.tiles[0]
    assert only.source_scenes == ["day-3"]
    assert only.moment == MOMENT + timedelta(days=3)
    assert sorted(only.considered_scenes) == [f"day-{day}" for day in range(5)]


def test_a_cloudy_tile_is_invalid_and_says_how_cloudy(source: TinySource) -> None:
    tile = Tile(NORTH, 360, 2778)
    add_granule(source, "clouds", tile, scl=cloudy(0.5))
    only = read(source, [tile]).tiles[0]
    assert only.state == "invalid"
    assert only.reason == "not clear: 0.50 at best, in clouds"
    assert only.considered_scenes == ["clouds"]
    assert read(source, [tile], minimum_clear=0.5).tiles[0].state == "valid"


def test_landsat_south_of_the_equator_is_read_from_the_northern_zone(source: TinySource) -> None:
    tile = Tile(SOUTH, 174, 1951)
    west, _, _, north = tile.bounds
    # Landsat's pixel edges lie half a pixel off the tile grid.
    x0, y0 = west - 315, north - FALSE_NORTHING_SOUTH + 315
    y, x = np.mgrid[:90, :90]
    ramp = (8000 + 20 * x + 40 * y).astype(np.uint16)
    qa = np.full((90, 90), 1 << 6, np.uint16)
    bands = {"red": (ramp, 30), "nir08": (ramp, 30), "qa_pixel": (qa, 30)}
    source.scene(
        "scene", "landsat-c2-l2", 32656, x0, y0, bands, platform="landsat-9", landsat__wrs_path="89"
    )
    origin = open_source(str(source.write()))
    scenes = origin.search(LANDSAT, box(150, -35, 152, -33), "../..")
    wanted = {tile: scenes}
    observed = read_block(tile.block, wanted, LANDSAT, ("red", "nir08"), origin.profile, 0.6)
    assert observed.tiles[0].state == "valid"
    pixels = observed.pixels[tile.block.position(tile), 0].astype(float)
    row, column = np.mgrid[:64, :64]
    # The centre of the tile's pixel (0, 0) is the corner between the scene's 10 and 11.
    numbers = 8000 + 20 * (column + 10.5) + 40 * (row + 10.5)
    np.testing.assert_allclose(pixels, (numbers * 2.75e-5 - 0.2) * 1e4, atol=1.01)


def break_asset(source: TinySource, scene_id: str, key: str, how: str) -> None:
    path = source.folder / "sentinel-2-l2a" / scene_id / f"{key}.tif"
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "not an image":
        path.write_bytes(b"<html>busy</html>" * 100)
    else:
        path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("how", ["missing", "not an image", "truncated"])
@pytest.mark.parametrize("key", ["B04", "SCL"])
def test_an_unreadable_asset_makes_its_tiles_invalid_and_nothing_else(
    source: TinySource, served: str, how: str, key: str
) -> None:
    broken, whole = Tile(NORTH, 360, 2778), Tile(NORTH, 363, 2778)
    add_granule(source, "broken", broken)
    add_granule(source, "whole", whole, seed=5, s2__datastrip_id="other")
    source.write()
    break_asset(source, "broken", key, how)
    observed = read(source, [broken, whole], served)
    by_tile = {o.tile: o for o in observed.tiles}
    assert by_tile[whole].state == "valid"
    assert by_tile[broken].state == "invalid"
    assert by_tile[broken].considered_scenes == ["whole"]
    reason = by_tile[broken].reason or ""
    assert reason.startswith(f"unreadable: broken, asset {key}: ")
    assert len(reason) > len(f"unreadable: broken, asset {key}: ") + 5
    assert not observed.pixels[broken.block.position(broken)].any()
    assert list(observed.failures) == ["broken"]


def test_another_pass_stands_in_for_an_unreadable_one(source: TinySource) -> None:
    tile = Tile(NORTH, 360, 2778)
    add_granule(source, "older", tile)
    add_granule(source, "newer", tile, moment=MOMENT + timedelta(days=5))
    source.write()
    break_asset(source, "newer", "B11", "missing")
    observed = read(source, [tile])
    only = observed.tiles[0]
    assert (only.state, only.source_scenes) == ("valid", ["older"])
    assert only.considered_scenes == ["older"]
    assert list(observed.failures) == ["newer"]


def test_a_scene_without_its_asset_or_baseline_is_a_failure_of_that_scene(
    source: TinySource,
) -> None:
    tile = Tile(NORTH, 360, 2778)
    add_granule(source, "no-baseline", tile)
    source.items[0].properties.pop("s2:processing_baseline")
    only = read(source, [tile]).tiles[0]
    assert only.state == "invalid"
    assert "no-baseline does not state its s2:processing_baseline" in (only.reason or "")


def test_a_signature_is_neither_raised_nor_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    band = SceneBand("B04", "http://127.0.0.1:9/B04.tif?sig=SECRET&se=2024", 1e-4, 0.0)
    bounds = (691200, 5333760, 693120, 5335680)
    [error] = read_assets([AssetWindow("scene", band, "generic", NORTH, bounds, 10)])
    assert isinstance(error, ReadError)
    assert str(error).startswith("scene, asset B04: Cannot connect to host 127.0.0.1:9")
    assert "SECRET" not in str(error)
    assert "SECRET" not in caplog.text
    assert "http://127.0.0.1:9/B04.tif: Cannot connect" in caplog.text


def test_redaction_leaves_the_rest_of_the_text() -> None:
    text = "'/vsicurl/https://host/a/B04.tif?sig=x%2F&se=1' failed: is http://h/b?c there?"
    assert redacted(text) == "'/vsicurl/https://host/a/B04.tif' failed: is http://h/b there?"
