import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.vrt
from shapely.geometry import shape

from data_catalog.demo_world import World, build_world, world_area
from data_catalog.demo_world.land_cover import LAND_COVER, land_cover_classes
from data_catalog.demo_world.scenes import granules, mgrs_square, wrs_path_row
from data_catalog.demo_world.spectra import FIRST_CROP, MATERIALS, Material
from data_catalog.errors import GridError, SourceError
from data_catalog.grid import Zone
from data_catalog.tile_cover import tiles_covering

NORTH = World(tiles=4)
SOUTH = World(zone=Zone(33, "S"), column=300, row=2000, tiles=3, seed=3)

LAND_CLASSES = (10, 20, 30, 40, 50, 60, 80)


@pytest.fixture(scope="module")
def north(tmp_path_factory):
    folder = tmp_path_factory.mktemp("north")
    build_world(folder, 1, NORTH)
    build_world(folder, 2, NORTH)
    return folder


@pytest.fixture(scope="module")
def south(tmp_path_factory):
    folder = tmp_path_factory.mktemp("south")
    build_world(folder, 1, SOUTH)
    return folder


def items_of(folder: Path, sensor: str) -> list[pystac.Item]:
    catalogue = pystac.Catalog.from_file(str(folder / "catalog.json"))
    items = sorted(catalogue.get_child(sensor).get_items(), key=lambda item: item.id)
    assert items
    return items


def properties_as_written(item: pystac.Item) -> dict:
    # pystac renames proj:epsg while it reads.
    return json.loads(Path(item.self_href).read_text())["properties"]


def read(item: pystac.Item, key: str) -> np.ndarray:
    with rasterio.open(item.assets[key].get_absolute_href()) as file:
        return file.read(1)


def test_area_is_covered_by_the_worlds_tiles():
    for world in (NORTH, SOUTH, World()):
        assert tiles_covering(world_area(world)) == world.all_tiles


@pytest.mark.parametrize("sensor", ["sentinel-2-l2a", "landsat-c2-l2"])
def test_assets_are_cloud_optimised_and_lie_where_the_items_say(north, sensor):
    for item in items_of(north, sensor):
        footprint = shape(item.geometry)
        epsg = properties_as_written(item)["proj:epsg"]
        assert footprint.is_valid and footprint.bounds == pytest.approx(item.bbox)
        for key, asset in item.assets.items():
            fields = asset.extra_fields | {}
            expected_shape = fields.get("proj:shape", item.properties.get("proj:shape"))
            expected = fields.get("proj:transform", item.properties.get("proj:transform"))
            with rasterio.open(asset.get_absolute_href()) as file:
                assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert file.profile["tiled"] and file.block_shapes == [(512, 512)]
                assert bool(file.overviews(1)) == (max(file.shape) > 512), key
                assert list(file.shape) == expected_shape
                assert list(file.transform)[:6] == expected
                assert file.crs.to_epsg() == epsg
                assert file.nodata == (1 if key == "qa_pixel" else 0)


def test_large_assets_have_overviews(tmp_path):
    build_world(tmp_path, 1, World(tiles=3, tile_size=2400, column=250))
    item = items_of(tmp_path, "sentinel-2-l2a")[0]
    with rasterio.open(item.assets["B02"].get_absolute_href()) as file:
        assert file.overviews(1) == [2]


def test_item_ids_and_properties_follow_the_agencies(north):
    for item in items_of(north, "sentinel-2-l2a"):
        satellite, level, taken, orbit, tile, made = item.id.split("_")
        assert (satellite, level) in {("S2A", "MSIL2A"), ("S2B", "MSIL2A")}
        assert taken == item.datetime.strftime("%Y%m%dT%H%M%S")
        assert orbit == f"R{item.properties['sat:relative_orbit']:03d}"
        assert tile == f"T{item.properties['s2:mgrs_tile']}"
        assert made == item.properties["s2:generation_time"].translate(
            str.maketrans("", "", "-:")
        ).removesuffix(".000000Z")
        assert item.properties["s2:processing_baseline"] >= "04.00"
    for item in items_of(north, "landsat-c2-l2"):
        satellite, level, place, _, collection, tier = item.id.split("_")
        assert (level, collection, tier) == ("L2SP", "02", "T1")
        properties = item.properties
        assert place == properties["landsat:wrs_path"] + properties["landsat:wrs_row"]
        assert properties["landsat:scene_id"] == (
            f"L{satellite[1]}{int(satellite[2:])}{place}{item.datetime:%Y%j}LGN00"
        )


def test_sentinel2_pixels_count_from_the_equator_and_landsat_is_half_a_pixel_off(north, south):
    for folder in (north, south):
        for item in items_of(folder, "sentinel-2-l2a"):
            _, _, west, _, _, top = item.assets["B02"].extra_fields["proj:transform"]
            from_equator = (
                top if properties_as_written(item)["proj:epsg"] < 32700 else 10_000_000 - top
            )
            assert west % 60 == 0 and from_equator % 60 == 0
        for item in items_of(folder, "landsat-c2-l2"):
            _, _, west, _, _, top = item.properties["proj:transform"]
            assert west % 30 == 15 and top % 30 == 15
            assert properties_as_written(item)["proj:epsg"] < 32700
    assert items_of(south, "landsat-c2-l2")[0].properties["proj:transform"][5] < 0


def test_overlapping_granules_of_one_pass_show_the_same_ground(north):
    first, second = (item for item in items_of(north, "sentinel-2-l2a") if item.datetime.day == 18)
    upper, lower = sorted((first, second), key=lambda item: -item.bbox[3])
    shared = read(lower, "SCL")
    assert 0 < len(shared) < len(read(upper, "SCL"))
    np.testing.assert_array_equal(read(upper, "SCL")[-len(shared) :], shared)


def test_both_sensors_see_one_ground(north):
    clear = {}
    for sensor, key, mask, scale, offset in (
        ("sentinel-2-l2a", "B04", "SCL", 1e-4, -0.1),
        ("landsat-c2-l2", "red", "qa_pixel", 2.75e-5, -0.2),
    ):
        item = max(
            (i for i in items_of(north, sensor) if i.datetime.month == 6),
            key=lambda i: shape(i.geometry).area - i.properties["eo:cloud_cover"] / 1000,
        )
        numbers, cover = read(item, key), read(item, mask)
        if mask == "SCL":
            cover = np.isin(cover, (4, 5, 6)).repeat(2, 0).repeat(2, 1)
        else:
            cover = cover & 0b11111 == 0
        values = np.where(cover & (numbers > 0), numbers * scale + offset, np.nan)
        clear[sensor] = item, values
    item, fine = clear["sentinel-2-l2a"]
    _, coarse = clear["landsat-c2-l2"]
    rows = fine.shape[0] // 3
    top = item.assets["B04"].extra_fields["proj:transform"][5]
    start = int(clear["landsat-c2-l2"][0].properties["proj:transform"][5] - top) // 30
    blocks = fine[: rows * 3].reshape(rows, 3, -1, 3).mean((1, 3))
    other = coarse[start : start + rows, : blocks.shape[1]]
    both = np.isfinite(blocks) & np.isfinite(other)
    assert both.mean() > 0.1
    assert np.corrcoef(blocks[both], other[both])[0, 1] > 0.8


def test_spectra_of_what_masks_call_vegetation_water_and_cloud_are_plausible(north):
    seen = {name: [] for name in ("vegetation", "cloud")}
    for item in items_of(north, "sentinel-2-l2a"):
        classes = read(item, "SCL")
        bands = {
            key: read(item, key)[::2, ::2][: classes.shape[0]] / 1e4 - 0.1
            for key in ("B02", "B04", "B08")
        }
        index = (bands["B08"] - bands["B04"]) / (bands["B08"] + bands["B04"])
        seen["vegetation"].append(index[classes == 4])
        seen["cloud"].append(bands["B02"][classes == 9])
        assert ((classes == 0) == (bands["B04"] == -0.1)).mean() > 0.99
    assert np.median(np.concatenate(seen["vegetation"])) > 0.5
    assert np.median(np.concatenate(seen["cloud"])) > 0.35


def test_clouds_differ_between_passes_and_most_tiles_are_clear_once(tmp_path):
    world = World(tiles=6)
    build_world(tmp_path, 1, world)
    west, _, _, north_edge = world.bounds
    best = np.zeros((6, 6))
    shares = []
    for item in items_of(tmp_path, "sentinel-2-l2a"):
        _, _, left, _, _, top = item.assets["SCL"].extra_fields["proj:transform"]
        whole = np.zeros((6 * 96, 6 * 96), bool)
        clear = ~np.isin(read(item, "SCL"), (0, 1, 3, 8, 9, 10))
        row, column = int(north_edge - top) // 20, int(left - west) // 20
        whole[row : row + clear.shape[0], column : column + clear.shape[1]] = clear
        share = whole.reshape(6, 96, 6, 96).mean((1, 3))
        best = np.maximum(best, share)
        shares.append(share.mean())
    assert (best > 0.6).mean() > 0.75
    assert len({round(share, 3) for share in shares}) == len(shares)


def test_second_night_adds_few_scenes_and_shows_a_harvest(tmp_path):
    build_world(tmp_path, 1, NORTH)
    before = {
        item.id
        for sensor in ("sentinel-2-l2a", "landsat-c2-l2")
        for item in items_of(tmp_path, sensor)
    }
    build_world(tmp_path, 2, NORTH)
    after = {item.id: item for item in items_of(tmp_path, "sentinel-2-l2a")}
    new = [after[key] for key in after if key not in before]
    assert len(new) == 1 and before & set(after)
    old = next(
        i
        for i in after.values()
        if i.properties["s2:mgrs_tile"] == new[0].properties["s2:mgrs_tile"]
    )
    assert old.datetime < new[0].datetime
    clear = np.isin(read(new[0], "SCL"), (4, 5, 6)) & np.isin(read(old, "SCL"), (4, 5, 6))
    change = np.abs(read(new[0], "B8A").astype(int) - read(old, "B8A"))[clear]
    assert (change > 600).mean() > 0.03


def test_world_is_deterministic(north, tmp_path):
    build_world(tmp_path, 1, NORTH)
    for item in items_of(tmp_path, "landsat-c2-l2"):
        twin = next(i for i in items_of(north, "landsat-c2-l2") if i.id == item.id)
        np.testing.assert_array_equal(read(item, "red"), read(twin, "red"))


def test_catalogue_is_relative_and_progress_is_told(tmp_path):
    told = []
    path = build_world(tmp_path / "a", 1, NORTH, lambda *step: told.append(step))
    assert path == tmp_path / "a" / "catalog.json"
    assert [done for done, _, _ in told] == list(range(1, told[-1][1] + 1))
    for file in path.parent.rglob("*.json"):
        links = json.loads(file.read_text())["links"]
        hrefs = [link["href"] for link in links if link["rel"] != "license"]
        assert not [href for href in hrefs if href.startswith("/") or "://" in href]
    (tmp_path / "a").rename(tmp_path / "b")
    assert read(items_of(tmp_path / "b", "landsat-c2-l2")[0], "red").any()


@pytest.mark.parametrize("world", [NORTH, SOUTH], ids=["north", "south"])
def test_the_land_cover_map_shows_the_scenes_own_ground(north, south, world):
    folder = north if world is NORTH else south
    maps = items_of(folder, LAND_COVER)
    scene = min(items_of(folder, "sentinel-2-l2a"), key=lambda item: item.datetime)
    scl = read(scene, "SCL")
    seen = np.isin(scl, (4, 5, 6))
    whole = np.zeros(read(scene, "B02").shape, np.uint8)
    for item in maps:
        fields = item.assets["map"].extra_fields
        assert {one["value"] for one in fields["classification:classes"]} >= set(LAND_CLASSES)
        with rasterio.open(item.assets["map"].get_absolute_href()) as file:
            assert file.crs.to_epsg() == 4326 and file.nodata == 0 and file.dtypes == ("uint8",)
            assert list(file.transform)[:6] == pytest.approx(fields["proj:transform"])
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        with (
            rasterio.open(item.assets["map"].get_absolute_href()) as file,
            rasterio.open(scene.assets["B02"].get_absolute_href()) as grid,
            rasterio.vrt.WarpedVRT(
                file,
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
            ) as warped,
        ):
            part = warped.read(1)
        whole[part > 0] = part[part > 0]
    assert (whole > 0).mean() > 0.995
    kinds = np.full(256, 4, np.uint8)
    kinds[[50, 60, 80]] = 5, 5, 6

    def agreement(shift):
        return (np.roll(kinds[whole], shift, 1)[1::2, 1::2] == scl)[seen].mean()

    assert agreement(0) > 0.999 and max(agreement(-1), agreement(1)) < 0.95


def test_land_cover_names_every_material():
    materials = np.array([*Material, *range(FIRST_CROP, MATERIALS)], np.uint8)
    assert set(np.unique(land_cover_classes(materials))) == {*LAND_CLASSES, 90}


def test_names_of_real_places():
    assert mgrs_square(Zone(32, "N"), 6, 53, 5_350_000) == "32UPU"
    assert mgrs_square(Zone(53, "N"), 2, 6, 650_000) == "53NKG"
    assert wrs_path_row(10.9, 47.4)[1] == 27 and abs(wrs_path_row(10.9, 47.4)[0] - 193) <= 1
    assert wrs_path_row(-122.1, 37.5) == (44, 34)
    names = [granule.name for granule in granules(World())]
    assert names == ["32TNT", "32UNU", "32TPT", "32UPU"]


def test_bad_calls_are_refused(tmp_path):
    with pytest.raises(SourceError, match="build night 1 first"):
        build_world(tmp_path, 2, NORTH)
    with pytest.raises(SourceError, match="nights"):
        build_world(tmp_path, 3, NORTH)
    with pytest.raises(GridError, match="1 to 40"):
        World(tiles=0)
