import re
from pathlib import Path

import duckdb
import pytest
from published_world import index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.grid import Tile, Zone
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.query_filters import Filters

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text()
QUERY = "UTM1920-32N_0305_2770"
PLACES = [*tiles(64, column=304, row=2769), *tiles(20, Zone(33, "N"))]


def block(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("page") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    around = [Tile(Zone(32, "N"), column, 2799) for column in (262, 263, 275)]
    codes = random_codes(5, seed=3)[[i % 5 for i in range(len(PLACES) + len(around))]]
    publish_code_tables(catalogue, model, code_rows(index([*PLACES, *around]), codes))
    return catalogue


def test_plain_sql_finds_what_we_find(catalogue, monkeypatch):
    monkeypatch.chdir(catalogue.root.parent)
    found = duckdb.sql(block("sql")).fetchall()
    expected = open_codes(catalogue).similar(QUERY, 100, filters=Filters(minimum_clear=0.5))
    inside = expected[expected.bounds["minx"].ge(5) & expected.bounds["maxx"].le(12)][:10]
    assert found == list(zip(inside["tile_id"], inside["distance"], strict=True))
    assert len(found) == 10


def test_the_lines_of_python_run(catalogue, monkeypatch):
    monkeypatch.chdir(catalogue.root.parent)
    names: dict = {}
    exec(block("python").replace("similar.plot", "shown = similar.plot"), names)
    assert names["tile_id"] == "UTM1920-32N_0262_2799"
    assert names["similar"]["tile_id"].tolist() == ["UTM1920-32N_0275_2799"]
    assert "shown" in names


def test_the_page_knows_the_commands_options():
    from flows.query_parameters import SimilarParameters

    known = {"--" + name.replace("_", "-") for name in SimilarParameters.model_fields}
    assert set(re.findall(r"--[a-z-]+[a-z]", PAGE)) <= known | {"--bbox"}
