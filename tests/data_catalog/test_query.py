import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_world import index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.errors import CatalogueError, GridError, QueryError
from data_catalog.grid import Zone
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.query_filters import Filters

PLACES = [*tiles(40), *tiles(20, Zone(33, "S"))]
# Few distinct codes, so that ties are many.
CODES = random_codes(6, seed=5)[np.random.default_rng(1).integers(0, 6, len(PLACES))]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("query") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES), CODES))
    return catalogue


@pytest.fixture(scope="module")
def codes(catalogue):
    return open_codes(catalogue)


def by_hand(query, k, allowed=lambda tile: True):
    own = CODES[[t.id for t in PLACES].index(query)]
    ranked = sorted(
        (int(np.bitwise_count(code ^ own).sum()), tile.id)
        for tile, code in zip(PLACES, CODES, strict=True)
        if tile.id != query and allowed(tile)
    )
    return [(tile_id, distance) for distance, tile_id in ranked[:k]]


def found(result):
    return list(zip(result["tile_id"], result["distance"], strict=True))


@settings(max_examples=40, deadline=None)
@given(which=st.integers(0, len(PLACES) - 1), k=st.integers(1, 70))
def test_similar_is_exact_with_ties_by_tile_id_and_without_the_query(codes, which, k):
    query = PLACES[which].id
    assert found(codes.similar(query, k)) == by_hand(query, k)


def test_a_result_says_where_and_when(codes):
    result = codes.similar(PLACES[0].id, 3)
    tile = {t.id: t for t in PLACES}[result["tile_id"][0]]
    assert (result["lon"][0], result["lat"][0]) == pytest.approx(tile.centre)
    assert result.geometry[0].equals(tile.footprint)
    assert str(result["datetime"][0]) == "2024-06-01 00:00:00+00:00"
    assert result.crs.to_authority() == ("OGC", "CRS84")


def test_neighbours_can_be_left_out(codes):
    query = PLACES[0]
    near = codes.similar(query.id, 59)
    far = codes.similar(query.id, 59, filters=Filters(minimum_distance_m=5000))
    assert far["away_km"].min() >= 5 > near["away_km"].min()
    distance = dict(zip(near["tile_id"], near["away_km"], strict=True))
    assert found(far) == by_hand(query.id, 59, lambda tile: distance[tile.id] >= 5)


def test_an_unpublished_tile_is_answered_with_the_nearest_published_one(codes):
    missing = tiles(1, column=200, row=2890)[0]
    with pytest.raises(QueryError) as error:
        codes.similar(missing.id)
    nearest = "UTM1920-32N_0183_2890"
    assert nearest in {t.id for t in PLACES}
    assert missing.id in str(error.value)
    assert f"nearest tile that has one is {nearest}, 32." in str(error.value)
    assert " km away" in str(error.value)
    with pytest.raises(QueryError, match=r"UTM1920-33S_018.*nearest.*UTM1920-33S_01"):
        codes.similar(tiles(1, Zone(33, "S"), column=186)[0].id)


def test_bad_input_is_refused(catalogue, codes):
    with pytest.raises(GridError, match="malformed"):
        codes.similar("32N-177")
    with pytest.raises(QueryError, match="k of at least 1"):
        codes.similar(PLACES[0].id, 0)
    with pytest.raises(QueryError, match="minimum distance"):
        codes.similar(PLACES[0].id, filters=Filters(minimum_distance_m=float("nan")))
    with pytest.raises(CatalogueError, match="'mrhash-1' is not published"):
        open_codes(catalogue, "mrhash-1")


def test_a_catalogue_without_codes_says_what_to_run(tmp_path):
    catalogue = Catalogue.create(tmp_path)
    with pytest.raises(CatalogueError, match="rshash train"):
        open_codes(catalogue)
    publish_model(catalogue, make_model())
    with pytest.raises(QueryError, match="rshash rehash"):
        open_codes(catalogue)


def test_codes_of_two_models_are_never_compared(tmp_path):
    catalogue = Catalogue.create(tmp_path / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES), CODES))
    item = catalogue.items(collection_of(model.model_id))[1]
    path = Path(str(item.get_self_href()))
    record = json.loads(path.read_text())
    record["properties"]["rshash:model"] = "another"
    path.write_text(json.dumps(record))
    with pytest.raises(QueryError, match=f"two models cannot be compared: {item.id} .* another"):
        open_codes(catalogue)


def test_a_damaged_table_is_named(tmp_path):
    catalogue = Catalogue.create(tmp_path)
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES[:3]), CODES[:3]))
    [path] = (catalogue.root / collection_of(model.model_id)).rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CatalogueError, match=f"{path.name} cannot be read"):
        open_codes(catalogue)


def test_a_table_that_is_cut_off_while_it_is_in_use_is_named(tmp_path):
    catalogue = Catalogue.create(tmp_path)
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES[:3]), CODES[:3]))
    [path] = (catalogue.root / collection_of(model.model_id)).rglob("*.parquet")
    opened = open_codes(catalogue)
    # Of a mapped file this would end the process.
    os.truncate(path, 0)
    with pytest.raises(CatalogueError, match=f"{path.name} cannot be read .*catalog rollback"):
        opened.similar(PLACES[0].id)
