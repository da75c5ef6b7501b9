import json
import signal
import subprocess
import sys

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
from published_world import BANDS, SIZE, index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from flows import cli

PLACES = tiles(40)
IDS = [tile.id for tile in PLACES]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("similar") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    rows = code_rows(index(PLACES), random_codes(len(PLACES), seed=2))
    publish_code_tables(catalogue, model, rows)
    return catalogue


@pytest.fixture
def similar(catalogue, monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(
            sys, "argv", ["rshash", "similar", *arguments, "--catalog", str(catalogue.root)]
        )
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        shown = capsys.readouterr()
        return status, " ".join((shown.out + shown.err).replace("│", " ").split())

    return run


def test_a_tile_and_its_place_have_the_same_answer(catalogue, similar):
    expected = open_codes(catalogue).similar(IDS[3], 4)
    lon, lat = PLACES[3].centre
    by_id = similar(IDS[3], "-k", "4")
    assert by_id == similar("--lon", str(lon), "--lat", str(lat), "-k", "4")
    assert by_id[0] == 0
    for tile_id in expected["tile_id"]:
        assert tile_id in by_id[1]


def test_filters_narrow_the_answer(similar, tmp_path):
    path = tmp_path / "all.json"

    def found(*arguments: str) -> list[str]:
        status, shown = similar(IDS[0], "-k", "99", "--output", str(path), *arguments)
        assert status == 0, shown
        return [row["tile_id"] for row in json.loads(path.read_text())["results"]]

    everything = found()
    assert set(everything) == set(IDS[1:])
    west, south, east, north = PLACES[9].footprint.bounds
    box = f"{west},{south},{east},{north}"
    assert found("--bbox", box) == [IDS[9]]
    region = tmp_path / "region.geojson"
    gpd.GeoSeries([PLACES[9].footprint], crs=4326).to_file(region)
    assert found("--region", str(region)) == [IDS[9]]
    assert found("--period", "2024-06") == everything
    assert found("--period", "../2024-05-31") == []
    assert "No tile passes the filters" in similar(IDS[0], "--period", "../2024-05-31")[1]
    assert found("--minimum-clear", "0.95") == []
    assert set(found("--other-blocks")) == set(IDS[8 * (8 - 2888 % 8) :]) - {IDS[0]}
    assert IDS[1] not in found("--minimum-distance", "2000")
    assert len(found("--radius", "30")) < len(everything)


def test_several_tiles_are_answered_as_a_batch_in_every_format(catalogue, similar, tmp_path):
    expected = open_codes(catalogue).similar_many(IDS[:2], 3)
    asked = [IDS[0], IDS[1], "-k", "3", "--output"]
    for suffix in ("json", "geojson", "parquet", "csv"):
        status, shown = similar(*asked, str(tmp_path / f"result.{suffix}"))
        assert status == 0, shown
        assert shown.count("Most similar to") == 2
    columns = ["query", "tile_id", "distance"]
    listed = json.loads((tmp_path / "result.json").read_text())
    assert listed["bits"] == 64
    for frame in (
        pd.DataFrame(listed["results"]),
        gpd.read_file(tmp_path / "result.geojson"),
        gpd.read_parquet(tmp_path / "result.parquet"),
        pd.read_csv(tmp_path / "result.csv"),
    ):
        assert frame[columns].values.tolist() == expected[columns].values.tolist()
        np.testing.assert_allclose(frame["away_km"], expected["away_km"])
        assert pd.to_datetime(frame["datetime"]).tolist() == expected["datetime"].tolist()
    assert gpd.read_file(tmp_path / "result.geojson").geometry.iloc[0].is_valid
    metadata = pq.read_schema(tmp_path / "result.parquet").metadata
    assert metadata[b"rshash:bits"] == b"64"
    credit = "Contains modified Copernicus Sentinel data [2024]"
    assert metadata[b"attribution"].decode() == credit
    assert listed["attribution"] == credit
    assert json.loads((tmp_path / "result.geojson").read_text())["attribution"] == credit


def test_a_tile_named_twice_is_answered_once(similar):
    assert similar(IDS[0], IDS[0]) == similar(IDS[0])


def test_more_like_these_less_like_those(catalogue, similar, tmp_path):
    path = tmp_path / "found.csv"
    status, shown = similar(
        "--like", IDS[0], IDS[1], "--unlike", IDS[2], "-k", "4", "--output", str(path)
    )
    assert status == 0
    assert f"Most similar to {IDS[0]} and {IDS[1]}, less to {IDS[2]}" in shown
    expected = open_codes(catalogue).similar_to_examples(IDS[:2], IDS[2:3], 4)
    assert pd.read_csv(path)["tile_id"].tolist() == expected["tile_id"].tolist()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_an_image_is_a_query(similar, tmp_path):
    path = tmp_path / "image.tif"
    side = SIZE // 10
    pixels = np.random.default_rng(0).random((len(BANDS), side, side), np.float32)
    with rasterio.open(path, "w", "GTiff", side, side, len(BANDS), dtype="float32") as image:
        image.write(pixels)
    output = tmp_path / "found.json"
    status, shown = similar("--image", str(path), "-k", "5", "--output", str(output))
    assert status == 0, shown
    rows = json.loads(output.read_text())["results"]
    assert len(rows) == 5
    assert {(row["query"], row["away_km"]) for row in rows} == {(str(path), None)}
    assert "km away" not in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Similar to what? Expected one of tile IDs, --lon and --lat, --image, --like"),
        ([IDS[0], "--image", "a.tif"], "found tile IDs and --image"),
        (["--lon", "9"], "give both --lon and --lat"),
        (["--lon", "9", "--lat", "88"], "84° N"),
        (["--lon", "9", "--lat", "48"], "nearest tile that has one is UTM1920-32N_01"),
        ([IDS[0], "--unlike", IDS[1]], "--unlike needs --like"),
        ([IDS[0], IDS[1], "--picture", "a.png"], "--picture shows the results of one"),
        ([IDS[0], "-k", "101", "--picture", "a.png"], "room for 100 tiles, but -k asks for 101"),
        ([IDS[0], "--output", "a.shp"], ".json, .geojson, .parquet, .csv"),
        ([IDS[0], "--output", "/proc/none/a.csv"], "cannot be written to /proc/none/a.csv"),
        ([IDS[0], "--bbox", "9,48"], "must be a surface"),
        ([IDS[0], "--bbox", "9,49,10,48"], "west,south,east,north"),
        ([IDS[0], "--region", "none.geojson"], "none.geojson"),
        ([IDS[0], "--period", "summer"], "'summer' is not understood"),
        ([IDS[0], "--radius", "-1"], "--radius"),
        ([IDS[0], "--model", "mrhash-1"], "'mrhash-1' is not published"),
        (["--image", "none.tif"], "no image file none.tif"),
        (["--image", "none.tif", "--other-blocks"], "an image has no place"),
        ([IDS[0], "--picture", "a.jpg"], "name it *.png"),
        ([IDS[0], "--output", "a.json", "--picture", "a.json"], "name it *.png"),
        ([IDS[0], "--radius", "65"], "0 to 64"),
        (["UTM960-32N_0352_5776"], "--size 1920"),
        (["--like", "nonsense"], "'nonsense' is malformed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(
    arguments, says, similar, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    status, shown = similar(*arguments)
    assert status == 2
    assert says in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


def test_an_answer_waits_for_no_heavy_import(catalogue):
    script = f"""
import sys
from flows.cli import main
sys.argv = ["rshash", "similar", {IDS[3]!r}, "--catalog", {str(catalogue.root)!r}]
try:
    main()
finally:
    heavy = {{"faiss", "geopandas", "pandas", "prefect", "rasterio", "torch", "zarr"}}
    print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Most similar to" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_is_no_image_is_refused_before_torch_is_imported(catalogue, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not pixels")
    script = f"""
import sys
from flows.cli import main
sys.argv = ["rshash", "similar", "--image", {str(path)!r}, "--catalog", {str(catalogue.root)!r}]
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (2, "False"), done.stderr
    assert "no image that can be read" in done.stderr
