import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from data_catalog.grid import footprints
from data_catalog.scenes import globe_copies
from data_catalog.search_areas import (
    REQUEST_VERTICES,
    SEARCH_REQUESTS,
    ground_of,
    search_areas,
)
from data_catalog.tile_cover import tiles_covering

WORLD = shapely.box(-180, -90, 180, 90)


def scattered(count: int, west: float, south: float, east: float, north: float) -> BaseGeometry:
    places = np.random.default_rng(count).uniform([west, south], [east, north], (count, 2))
    return shapely.MultiPoint(places)


def star(spikes: int) -> BaseGeometry:
    angle = np.linspace(0, 2 * np.pi, 20 * spikes, endpoint=False)
    radius = 2.0 + 0.3 * np.sin(angle * spikes)
    return shapely.Polygon(np.stack([10 + radius * np.cos(angle), 50 + radius * np.sin(angle)], 1))


AREAS = {
    "one place": shapely.MultiPoint([(9.1, 48.2)]),
    "a country's coast": star(100),
    "places in a country": scattered(300, 6, 47, 15, 55),
    "places on the globe": scattered(400, -180, -75, 180, 80),
    "thousands on the globe": scattered(3000, -180, -75, 180, 80),
    "over the antimeridian": shapely.box(179.6, -17.2, 180.4, -16.8),
    "both": shapely.union_all([star(30), shapely.box(178, 60, 181, 62)]),
}


@pytest.mark.parametrize("name", AREAS)
def test_no_ground_of_a_tile_is_lost(name: str) -> None:
    tiles = tiles_covering(AREAS[name])
    areas = search_areas(ground_of(tiles))
    assert len(areas) <= SEARCH_REQUESTS
    for area in areas:
        assert area.is_valid and WORLD.contains(area)
        assert shapely.get_num_coordinates(area) <= REQUEST_VERTICES + 5
    searched = shapely.union_all(globe_copies(shapely.union_all(areas))).buffer(1e-9)
    shapely.prepare(searched)
    assert shapely.covers(searched, np.array(footprints(tiles))).all()


@given(st.floats(-180, 180), st.floats(-79, 83))
def test_a_tile_s_whole_square_is_searched(lon: float, lat: float) -> None:
    tiles = tiles_covering(shapely.Point(lon, lat))
    areas = search_areas(ground_of(tiles))
    searched = shapely.union_all(globe_copies(shapely.union_all(areas)))
    assert searched.buffer(1e-9).covers(tiles[0].footprint)
    assert sum(area.area for area in areas) < 1.2 * tiles[0].footprint.area


def test_a_simple_area_is_searched_as_it_is() -> None:
    area = shapely.box(9, 48, 10, 49)
    assert [one.wkt for one in search_areas(area)] == [area.wkt]


def test_what_is_searched_is_little_more_than_asked_for() -> None:
    for name in ("a country's coast", "places in a country", "places on the globe"):
        ground = ground_of(tiles_covering(AREAS[name]))
        searched = shapely.union_all(search_areas(ground))
        assert searched.area < 1.2 * ground.area
