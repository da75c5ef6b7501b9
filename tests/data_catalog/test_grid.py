import json

import numpy as np
import pytest
import shapely
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from shapely.affinity import translate

from data_catalog.errors import GridError
from data_catalog.grid import (
    BLOCK_TILES,
    EXAMPLE_ID,
    FALSE_NORTHING_SOUTH,
    Tile,
    Zone,
    blocks_of,
    parse_tile_id,
    tile_at,
    zone_at,
)
from data_catalog.tile_cover import tiles_covering

LON = st.floats(-180, 180)
LAT = st.floats(-80, 84)
SIZES = st.integers(1, 1666).map(lambda n: 60 * n)
USUAL_SIZES = st.sampled_from([960, 1920, 1980, 3840])


def distance_outside_m(tile: Tile, lon: float, lat: float) -> float:
    """How far a place lies outside a tile, measured in the tile's own projection."""
    easting, northing = tile.zone.project(lon, lat)
    west, south, east, north = tile.bounds
    return float(max(west - easting, easting - east, south - northing, northing - north))


@given(LON, LAT, SIZES)
@example(-180.0, 0.0, 1920)
@example(180.0, 84.0, 60)
@example(179.9999999, -80.0, 1920)
@example(6.0, -1e-9, 1920)
@example(2.9999999, 83.9999, 99_960)
def test_a_place_lies_in_its_tile(lon: float, lat: float, size: int) -> None:
    tile = tile_at(lon, lat, size)
    assert distance_outside_m(tile, lon, lat) < 1e-6
    assert tile.zone == zone_at(lon, lat)
    assert parse_tile_id(tile.id) == tile


@given(LON, LAT)
def test_the_footprint_holds_the_place(lon: float, lat: float) -> None:
    tile = tile_at(lon, lat)
    # Edges straight in metres are bent in degrees: by less than a metre for a tile this small.
    around = tile.footprint.buffer(2e-5 / max(np.cos(np.radians(lat)), 0.05))
    turns = [shapely.Point(lon + turn, lat) for turn in (-360, 0, 360)]
    assert any(around.contains(point) for point in turns)
    west, _, east, _ = tile.footprint.bounds
    assert east - west < 2.0


@given(LON, LAT, USUAL_SIZES)
def test_the_centre_of_a_tile_is_a_place_of_that_tile(lon: float, lat: float, size: int) -> None:
    tile = tile_at(lon, lat, size)
    centre = tile.centre
    assume(-80 <= centre[1] <= 84)
    assume(zone_at(*centre) == tile.zone)
    assert tile_at(*centre, size) == tile


@given(LON, LAT, st.sampled_from([-720, -360, 360]))
def test_a_place_has_one_tile_however_often_one_goes_around(
    lon: float, lat: float, turn: int
) -> None:
    # The same longitude, rounded the same way.
    lon = round(lon * 64) / 64
    assert tile_at(lon + turn, lat) == tile_at(lon, lat)


AREAS = st.builds(
    lambda lon, lat, width, height: shapely.box(lon, lat, lon + width, min(lat + height, 84.0)),
    st.floats(-180, 180),
    st.one_of(st.floats(-80, 83.9), st.floats(-0.1, 0.05), st.floats(83, 83.9)),
    st.floats(0.001, 0.3),
    st.floats(0.001, 0.1),
)


@settings(max_examples=60, deadline=None)
@given(AREAS, st.sampled_from([1920, 3840]), st.data())
@example(shapely.box(179.9, -0.05, 180.1, 0.05), 1920, None)
@example(shapely.box(-180.05, 10.0, -179.95, 10.05), 1920, None)
@example(shapely.box(5.95, 83.9, 6.05, 84.0), 1920, None)
@example(shapely.box(5.95, -80.0, 6.05, -79.95), 1920, None)
def test_the_tiles_of_an_area_cover_it(
    area: shapely.Polygon, size: int, data: st.DataObject | None
) -> None:
    tiles = set(tiles_covering(area, size))
    west, south, east, north = area.bounds
    shares = [(i / 7, j / 7) for i in range(8) for j in range(8)]
    if data is not None:
        share = st.floats(0, 1)
        shares += [data.draw(st.tuples(share, share)) for _ in range(5)]
    for i, j in shares:
        lon = min(west + i * (east - west), east)
        lat = min(south + j * (north - south), north)
        assert tile_at(lon, lat, size) in tiles


@settings(max_examples=40, deadline=None)
@given(AREAS)
def test_every_tile_of_an_area_is_touched_by_it(area: shapely.Polygon) -> None:
    turns = [translate(area, xoff=t) for t in (-360, 0, 360)]
    near = shapely.union_all(turns).buffer(5e-4 / np.cos(np.radians(83.9)))
    for tile in tiles_covering(area):
        assert near.intersects(tile.footprint), tile.id


@given(st.lists(st.tuples(LON, LAT), min_size=1, max_size=20))
def test_points_are_covered_by_exactly_their_tiles(points: list[tuple[float, float]]) -> None:
    expected = {tile_at(lon, lat) for lon, lat in points}
    assert tiles_covering(shapely.MultiPoint(points)) == sorted(expected)


def test_an_area_over_the_antimeridian_has_tiles_on_both_sides() -> None:
    tiles = tiles_covering(shapely.box(179.9, 51.0, 180.1, 51.1))
    assert {tile.zone for tile in tiles} == {Zone(60, "N"), Zone(1, "N")}
    again = tiles_covering(shapely.box(-180.1, 51.0, -179.9, 51.1))
    assert {tile.id for tile in again} == {tile.id for tile in tiles}


def test_an_area_over_the_equator_has_tiles_in_both_hemispheres() -> None:
    tiles = tiles_covering(shapely.box(10.0, -0.03, 10.03, 0.03))
    rows = {(tile.zone.hemisphere, tile.row) for tile in tiles}
    assert rows == {("N", 0), ("N", 1), ("S", 0), ("S", 1)}


@given(
    st.integers(1, 60),
    st.sampled_from("NS"),
    st.integers(60, 400),
    st.integers(0, 4800),
)
def test_ids_come_back(number: int, hemisphere: str, column: int, row: int) -> None:
    tile = Tile(Zone(number, hemisphere), column, row)
    assert parse_tile_id(tile.id) == tile


@pytest.mark.parametrize(
    ("lon", "lat", "tile_id"),
    [
        (11.575, 48.137, "UTM1920-32N_0360_2778"),
        (151.215, -33.857, "UTM1920-56S_0174_1951"),
        (-180.0, 0.0, "UTM1920-01N_0086_0000"),
        (179.999, -16.5, "UTM1920-60S_0427_0951"),
        (25.0, 71.17, "UTM1920-35N_0222_4113"),
    ],
)
def test_golden_ids(lon: float, lat: float, tile_id: str) -> None:
    assert tile_at(lon, lat).id == tile_id


@pytest.mark.parametrize(
    ("tile_id", "fault"),
    [
        ("", "malformed"),
        ("UTM1920-32N-0177-2891", "malformed"),
        ("utm1920-32N_0177_2891", "write it in capitals, as UTM1920-32N_0177_2891."),
        ("utm1920-61n_0177_2891", "expected UTM<size>"),
        ("UTM1920-32N_177_2891", "malformed"),
        ("UTM1920-32N_00177_2891", "write it as UTM1920-32N_0177_2891"),
        ("UTM1920-00N_0177_2891", "zone 00 does not exist"),
        ("UTM1920-61N_0177_2891", "zone 61 does not exist"),
        ("UTM1925-32N_0177_2891", "multiple of 60 m"),
        ("UTM1920-32N_9999_2891", "lies outside zone 32N"),
        ("UTM1920-32S_0177_9891", "lies outside zone 32S"),
        ("UTM1920-32N_0177_2891\n", "malformed"),
    ],
)
def test_a_bad_id_is_named_with_its_fault_and_a_good_example(tile_id: str, fault: str) -> None:
    with pytest.raises(GridError) as raised:
        parse_tile_id(tile_id)
    message = str(raised.value)
    assert fault in message
    assert repr(tile_id) in message
    assert EXAMPLE_ID in message or "write it" in message


@pytest.mark.parametrize("size", [0, -60, 100, 1925, 99_999, 120_000])
def test_a_bad_size_is_refused_with_a_good_example(size: int) -> None:
    with pytest.raises(GridError, match="1920"):
        tile_at(10, 50, size)


@pytest.mark.parametrize(
    ("lon", "lat"), [(10, 84.01), (10, -80.01), (50, 110), (float("nan"), 5), (5, float("inf"))]
)
def test_a_place_outside_the_grid_is_refused(lon: float, lat: float) -> None:
    with pytest.raises(GridError):
        tile_at(lon, lat)


@given(LON, LAT)
def test_a_block_holds_its_tiles_each_at_its_own_position(lon: float, lat: float) -> None:
    block = tile_at(lon, lat).block
    members = [
        Tile(block.zone, block.column * BLOCK_TILES + i, block.row * BLOCK_TILES + j)
        for i in range(BLOCK_TILES)
        for j in range(BLOCK_TILES)
    ]
    assert sorted(block.position(tile) for tile in members) == list(range(64))
    assert blocks_of(members) == {block: members}
    west, south, east, north = block.bounds
    for tile in members:
        assert west <= tile.bounds[0] and tile.bounds[2] <= east
        assert south <= tile.bounds[1] and tile.bounds[3] <= north


def test_pixels_of_real_sentinel_2_scenes_lie_on_the_tile_grid(shared) -> None:
    hemispheres = set()
    for path in shared.glob("data/stac-items/*/sentinel-2*/S2*.json"):
        item = json.loads(path.read_text())
        epsg = item["properties"]["proj:epsg"]
        for asset in item["assets"].values():
            resolution, _, west, _, _, north = asset.get("proj:transform", [0] * 6)[:6]
            if resolution not in (10, 20, 60):
                continue
            from_equator = north if epsg < 32700 else FALSE_NORTHING_SOUTH - north
            assert west % resolution == from_equator % resolution == 0
            assert west % 60 == from_equator % 60 == 0
        hemispheres.add(epsg // 100)
    assert hemispheres == {326, 327}
