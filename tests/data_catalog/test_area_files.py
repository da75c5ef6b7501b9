import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.areas import parse_area
from data_catalog.errors import AreaError
from data_catalog.grid import Tile, Zone, tile_at
from data_catalog.tile_cover import tiles_covering

PLACES = [(11.575, 48.137), (-179.99, -17.0), (180.0, 0.5), (30.1, -2.25)]
SQUARE = shapely.box(10, 50, 10.1, 50.1)
BOWTIE = "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"


def tiles_of(path: Path, size: int = 1920) -> list[Tile]:
    return tiles_covering(parse_area(str(path), size), size)


def features(*geometries: Any, **members: Any) -> str:
    parts = [
        {"type": "Feature", "properties": {}, "geometry": g and shapely.geometry.mapping(g)}
        for g in geometries
    ]
    return json.dumps({"type": "FeatureCollection", "features": parts, **members})


def written_as(kind: str, folder: Path) -> Path:
    path = folder / f"places.{kind}"
    points = [shapely.Point(place) for place in PLACES]
    if kind.lower() in ("csv", "tsv"):
        separator = "\t" if kind == "tsv" else ","
        lines = [separator.join(["name", "Longitude", "Latitude"])]
        path.write_text("\n".join(lines + [separator.join(map(str, ["a", *p])) for p in PLACES]))
    elif "json" in kind.lower():
        path.write_text(features(*points))
    else:
        gpd.GeoDataFrame(geometry=points, crs=4326).to_parquet(path)
    return path


@pytest.mark.parametrize(
    "kind", ["csv", "CSV", "tsv", "geojson", "JSON", "parquet", "GeoParquet", "PARQUET"]
)
def test_points_in_a_file_give_exactly_the_tiles_that_hold_them(kind: str, tmp_path: Path) -> None:
    assert tiles_of(written_as(kind, tmp_path)) == sorted({tile_at(*place) for place in PLACES})


@pytest.mark.parametrize(
    "text",
    [
        "lon,lat\n11.575,48.137\n",
        "\ufeffLON;LAT\n11.575;48.137\n",
        "name,x,y\n\n a , 11.575 ,48.137\n\n",
        'note,geometry\n"two\nlines",POINT (11.575 48.137)\n',
        "tile_id,lon,lat\nUTM1920-32N_0360_2778,nowhere,0\n",
    ],
)
def test_columns_that_tell_places(text: str, tmp_path: Path) -> None:
    path = tmp_path / "places.csv"
    path.write_text(text)
    assert tiles_of(path) == [tile_at(11.575, 48.137)]


def test_areas_and_points_stand_side_by_side(tmp_path: Path) -> None:
    point = shapely.Point(-61, -30)
    wanted = {*tiles_covering(SQUARE), tile_at(-61, -30)}
    table = tmp_path / "areas.csv"
    table.write_text(f'geometry\n"{SQUARE.wkt}"\n{point.wkt}\n')
    text = tmp_path / "areas.geojson"
    text.write_text(features(SQUARE, point))
    frame = tmp_path / "areas.parquet"
    gpd.GeoDataFrame(geometry=[SQUARE, point], crs="OGC:CRS84").to_parquet(frame)
    for path in (table, text, frame):
        assert set(tiles_of(path)) == wanted


def test_many_small_areas_give_the_tiles_of_each() -> None:
    corners = np.random.default_rng(3).uniform([-179, -60], [178, 70], (40, 2))
    boxes = [shapely.box(x, y, x + 0.03, y + 0.03) for x, y in corners]
    each = {tile for box in boxes for tile in tiles_covering(box)}
    assert set(tiles_covering(shapely.union_all(boxes))) == each


@given(st.floats(-180, 180), st.floats(-80, 84), st.sampled_from([960, 1920, 3840]))
def test_a_tile_s_id_stands_for_the_tile(lon: float, lat: float, size: int) -> None:
    tile = tile_at(lon, lat, size)
    frame = pd.DataFrame({"tile_id": [tile.id]})
    path = Path("tiles.csv")
    assert _read(frame, path, size) == [tile]


def _read(frame: pd.DataFrame, path: Path, size: int) -> list[Tile]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        frame.to_csv(Path(folder, path), index=False)
        return tiles_of(Path(folder, path), size)


def test_tables_of_ours_name_tiles_not_their_squares(tmp_path: Path) -> None:
    tiles = [tile_at(*place) for place in PLACES]
    squares = [tile.footprint for tile in tiles]
    frame = gpd.GeoDataFrame({"tile_id": [t.id for t in tiles]}, geometry=squares, crs=4326)
    frame.to_parquet(tmp_path / "index.parquet")
    assert tiles_of(tmp_path / "index.parquet") == sorted(tiles)


def test_an_area_cut_at_the_antimeridian_is_one(tmp_path: Path) -> None:
    halves = [shapely.box(179.95, -17, 180, -16.95), shapely.box(-180, -17, -179.95, -16.95)]
    path = tmp_path / "area.geojson"
    wanted = set(tiles_covering(shapely.box(179.95, -17, 180.05, -16.95)))
    for parts in ([shapely.MultiPolygon(halves)], halves):
        path.write_text(features(*parts))
        assert set(tiles_of(path)) == wanted


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"no columns .*: it has none"),
        ("lon,lat\n", "is empty: write at least one line with a place"),
        (
            "name,east,north\na,1,2\n",
            r"no columns lon and lat, .* or tile_id: it has name, east, north\. Rename",
        ),
        ("lon,lat\n1,2\n\n3,x\n", r"line 4: lat 'x' is not a number of degrees"),
        ("lon,lat\n1,2\n3,\n", r"line 3: lat '' is not a number"),
        ("lon,lat\n1,nan\n", r"line 2: lat 'nan' is not a number"),
        ("lon,lat\n1,2\n3\n", r"line 3: it has 1 fields, but the header 2: put .* ',' in quotes"),
        ("lon;lat\n1,5;2,5\n", r"line 2: lon '1,5' is not .*: write one with a decimal point"),
        ("lon,lat\n1,2\n181,2\n", r"line 3: longitude 181 is outside -180 to 180"),
        ("lon,lat\n1,2\n48,-81\n", r"line 3: latitude -81 is outside the tile grid"),
        ("x,y\n691000,5334000\n", r"line 2: longitude 691000 is outside"),
        ('note,geometry\n"a\nb",POINT (1 2)\nc,POINT 1 2\n', r"line 4: geometry .* is no WKT"),
        (f'geometry\n"{BOWTIE}"\n', r"line 2: .*Self-intersection.*make_valid"),
        ("geometry\nPOINT EMPTY\n", "line 2: its geometry is empty"),
        ("tile_id\nUTM1920-32N_0360_2778\nUTM1920-99N_0001_0001\n", "line 3: .* zone 99"),
        ("tile_id\nUTM960-32N_0360_2778\n", "line 2: tile .* is 960 m .* add --tile-size 960"),
        ("tile_id\nUTM1920-32N_0500_4800\n", "line 2: no place belongs to tile"),
    ],
)
def test_a_bad_row_of_a_table_is_named_by_its_line(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "places.csv"
    path.write_text(text)
    with pytest.raises(AreaError, match=fault) as refused:
        parse_area(str(path), 1920)
    assert str(path) in str(refused.value)


NAME = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
WRAPPED = shapely.Polygon([(179, -17), (-179, -17), (-179, -16), (179, -16)])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (features(), "is empty"),
        (features(SQUARE, None), "feature 2: it has no geometry"),
        (features(SQUARE, shapely.from_wkt(BOWTIE)), "feature 2: .*Self-intersection"),
        (features(SQUARE, shapely.Point(-180.5, 3)), "feature 2: longitude -180.5"),
        (features(shapely.Point(3, 89)), "feature 1: latitude 89"),
        (features(WRAPPED), "feature 1: an edge of its polygon spans 358° of longitude: cut"),
        (features(SQUARE, crs=NAME), r"32632, but areas are in .*gdf\.to_crs\(4326\)"),
        (features(SQUARE, crs={"type": "link"}), r"gdf\.to_crs\(4326\)"),
        ('{"type": "FeatureCollection"}', "not valid GeoJSON: 'features' is missing"),
        ("lon,lat\n1,2", r"not valid GeoJSON: .*tables end in \.csv"),
        ("[1]", "not valid GeoJSON"),
    ],
)
def test_a_bad_feature_is_named(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(text)
    with pytest.raises(AreaError, match=fault):
        parse_area(str(path))


@pytest.mark.parametrize("name", ["urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"])
def test_a_member_that_names_longitudes_and_latitudes_is_fine(name: str, tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    path.write_text(features(SQUARE, crs={"type": "name", "properties": {"name": name}}))
    assert parse_area(str(path)).equals(SQUARE)


def test_geoparquet_in_another_projection_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "area.parquet"
    frame = gpd.GeoDataFrame(geometry=[SQUARE], crs=4326)
    frame.to_crs(32632).to_parquet(path)
    with pytest.raises(AreaError, match=r"EPSG:32632, but .*gdf\.to_crs\(4326\)"):
        parse_area(str(path))
    frame.set_crs(None, allow_override=True).to_parquet(path)
    with pytest.raises(AreaError, match="does not tell its CRS"):
        parse_area(str(path))
    frame.iloc[:0].to_parquet(path)
    with pytest.raises(AreaError, match="is empty"):
        parse_area(str(path))
    gpd.GeoDataFrame(geometry=[SQUARE, None], crs=4326).to_parquet(path)
    with pytest.raises(AreaError, match="row 2: it has no geometry"):
        parse_area(str(path))


def test_parquet_with_coordinates_is_read_like_csv(tmp_path: Path) -> None:
    path = tmp_path / "places.parquet"
    pd.DataFrame({"lon": [11.575], "lat": [48.137]}).to_parquet(path)
    assert tiles_of(path) == [tile_at(11.575, 48.137)]
    pd.DataFrame({"east": [1]}).to_parquet(path)
    with pytest.raises(AreaError, match=r"no columns .*: it has east"):
        parse_area(str(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(AreaError, match="not valid GeoParquet"):
        parse_area(str(path))


def test_edge_tiles_of_a_zone_are_named_by_id(tmp_path: Path) -> None:
    # Its centre lies beyond the zone's edge, in the neighbour's zone.
    edge = next(
        tile
        for lat in np.linspace(47, 49, 60)
        if (tile := tile_at(11.9999, lat)).centre[0] > 12.0 and tile.zone == Zone(32, "N")
    )
    path = tmp_path / "tiles.csv"
    path.write_text(f"tile_id\n{edge.id}\n")
    assert tiles_of(path) == [edge]
