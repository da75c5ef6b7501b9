import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.areas import parse_area, parse_period
from data_catalog.errors import AreaError
from data_catalog.grid import Zone, tile_at
from data_catalog.tile_cover import tiles_covering

SQUARE = {"type": "Polygon", "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 51], [10, 50]]]}


@given(st.floats(-180, 170), st.floats(-80, 83), st.floats(0.01, 9), st.floats(0.01, 1))
def test_a_box_is_read_as_it_is_written(west: float, south: float, w: float, h: float) -> None:
    text = f"{west},{south}, {west + w},{south + h}"
    assert parse_area(text).bounds == pytest.approx((west, south, west + w, south + h))


def test_a_box_whose_west_is_east_of_its_east_lies_over_the_antimeridian() -> None:
    area = parse_area("179.9,-17,-179.9,-16.9")
    assert area.bounds == pytest.approx((179.9, -17, 180.1, -16.9))
    assert {tile.zone for tile in tiles_covering(area)} == {Zone(60, "S"), Zone(1, "S")}


def test_points_are_read() -> None:
    area = parse_area("11.575,48.137 -180,.5;1e1,-2")
    assert tiles_covering(area) == sorted(
        tile_at(*place) for place in [(11.575, 48.137), (-180, 0.5), (10, -2)]
    )
    assert parse_area("11.575,48.137").geom_type == "MultiPoint"


@pytest.mark.parametrize(
    "content",
    [
        SQUARE,
        {"type": "Feature", "properties": {}, "geometry": SQUARE},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": SQUARE}]},
        {"type": "GeometryCollection", "geometries": [SQUARE]},
    ],
    ids=lambda content: content["type"],
)
def test_geojson_is_read_as_text_and_as_a_file(content: dict, tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(content))
    for text in (json.dumps(content), str(path)):
        assert parse_area(text).equals(shapely.box(10, 50, 11, 51))


def test_geojson_cut_at_the_antimeridian_is_put_together() -> None:
    halves = shapely.MultiPolygon(
        [shapely.box(179.9, -17, 180, -16.9), shapely.box(-180, -17, -179.9, -16.9)]
    )
    area = parse_area(shapely.to_geojson(halves))
    assert area.bounds == pytest.approx((179.9, -17, 180.1, -16.9))
    assert area.geom_type == "Polygon"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nowhere.geojson", "neither a file nor an area"),
        ("", "neither a file nor an area"),
        ("10,50,11", "neither a file nor an area"),
        ("10,51,11,50", "the order is west,south,east,north"),
        ("10,50,10,51", "no extent"),
        ("10,50,11,85", "outside the tile grid"),
        ("10,-81,11,-79", "outside the tile grid"),
        ("50,110", "outside the tile grid"),
        ("700,50,701,51", "longitude 700 is outside -180 to 180"),
        ("179,-17,181,-16", "longitude 181 .* such as 179,-17,-179,-16"),
        ("180.5,2", "longitude 180.5 is outside"),
        (
            '{"type":"LineString","coordinates":[[179,0],[181,0]]}',
            "feature 1: longitude 181 is outside .* cut there",
        ),
        ('{"type": "Polygon"}', "not valid GeoJSON"),
        ('{"coordinates": [1, 2]}', "not valid GeoJSON: 'type' is missing"),
        ('{"type": "Polygon", "coordinates": ', "not valid GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "empty"),
        (
            '{"type":"Polygon","coordinates":[[[0,0],[1,1],[1,0],[0,1],[0,0]]]}',
            "Self-intersection",
        ),
        (
            '{"type":"MultiPolygon","coordinates":[[[[0,0],[1,1],[1,0],[0,1],[0,0]]],'
            "[[[0.5,0.2],[1.5,1.2],[1.5,0],[0.5,1],[0.5,0.2]]]]}",
            "feature 1: its geometry is not valid: Self-intersection",
        ),
        ("12.5;48.1 " * 30, "neither a file nor an area"),
    ],
)
def test_a_bad_area_is_refused_and_says_why(text: str, fault: str) -> None:
    with pytest.raises(AreaError, match=fault):
        parse_area(text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(AreaError, match="no text in UTF-8"):
        parse_area(str(path))


def test_parts_that_touch_are_one_area() -> None:
    parts = shapely.MultiPolygon([shapely.box(10, 50, 11, 51), shapely.box(11, 50, 12, 51)])
    assert parse_area(shapely.to_geojson(parts)).equals(shapely.box(10, 50, 12, 51))


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("2024-06-01/2024-08-31", "2024-06-01T00:00:00Z/2024-08-31T23:59:59.999999Z"),
        ("2024-06-18", "2024-06-18T00:00:00Z/2024-06-18T23:59:59.999999Z"),
        ("2024-02", "2024-02-01T00:00:00Z/2024-02-29T23:59:59.999999Z"),
        ("2024-12", "2024-12-01T00:00:00Z/2024-12-31T23:59:59.999999Z"),
        ("2023", "2023-01-01T00:00:00Z/2023-12-31T23:59:59.999999Z"),
        ("2023/2024", "2023-01-01T00:00:00Z/2024-12-31T23:59:59.999999Z"),
        ("2024-06-01/..", "2024-06-01T00:00:00Z/.."),
        ("../2024-06-01", "../2024-06-01T23:59:59.999999Z"),
        (
            "2024-06-01T12:00:00+02:00/2024-06-02",
            "2024-06-01T10:00:00Z/2024-06-02T23:59:59.999999Z",
        ),
    ],
)
def test_periods(text: str, period: str) -> None:
    assert parse_period(text) == period
    assert parse_period(period) == period


def test_a_duration_ends_now() -> None:
    start, end = (datetime.fromisoformat(part) for part in parse_period("P30D").split("/"))
    assert (end - start).days == 30
    assert abs((datetime.now(UTC) - end).total_seconds()) < 60
    assert (end - datetime.fromisoformat(parse_period("P2W").split("/")[0])).days == 14


@pytest.mark.parametrize(
    "text", ["", "..", "../..", "yesterday", "2024-13", "2024-02-30", "a/b", "2024/2025/2026", "P3"]
)
def test_a_bad_period_is_refused_with_good_examples(text: str) -> None:
    with pytest.raises(AreaError, match="2024-06-01/2024-08-31"):
        parse_period(text)


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(AreaError, match="ends before it starts"):
        parse_period("2024-08-31/2024-06-01")


def test_the_last_year_that_a_calendar_has_is_a_period() -> None:
    last = "9999-12-31T23:59:59.999999Z"
    for text in ("2024-01-01/9999-12-31", "2024-01-01/9999-12", "2024-01-01/9999"):
        assert parse_period(text) == f"2024-01-01T00:00:00Z/{last}"
