import json
import os

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from published_world import SENSOR, index, make_model, random_codes, tiles, view_of
from shapely.geometry import shape

from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_table_schema, collection_of
from data_catalog.code_tables import (
    CHANGES,
    LEARNED,
    code_rows,
    codes_of,
    publish_code_tables,
    published_table,
    stale_observations,
    with_learned_codes,
    write_code_table,
)
from data_catalog.errors import CatalogueError
from data_catalog.geometry import outline
from data_catalog.grid import Zone, parse_tile_id
from rshash.codes import hamming_distance, pack
from rshash.errors import CodeError


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue.create(tmp_path / "catalogue")


@pytest.fixture(scope="module")
def model():
    return make_model()


def rows(some_tiles, codes, day="2024-06-01", scene="S2A_1"):
    return code_rows(index(some_tiles, day, scene), codes)


def table_file(tmp_path, bits=64, some_tiles=None):
    some_tiles = some_tiles or tiles(30)
    frame = rows(some_tiles, random_codes(len(some_tiles), bits)).assign(model_id="m")
    path = tmp_path / "codes.parquet"
    return path, write_code_table(path, frame.sample(frac=1, random_state=0), bits, SENSOR)


def current(catalogue, model):
    items = catalogue.items(collection_of(model.model_id))
    return pd.concat([published_table(catalogue, item) for item in items], ignore_index=True)


def test_bit_order_is_what_it_has_always_been(tmp_path):
    values = -np.ones((1, 72))
    values[0, [0, 63, 64, 71]] = 1
    path = tmp_path / "codes.parquet"
    write_code_table(path, rows(tiles(1), pack(values)).assign(model_id="m"), 72, SENSOR)
    table = pq.read_table(path)
    assert table["code_0"].to_pylist() == [0x8000_0000_0000_0001]
    assert table["code_1"].to_pylist() == [0x8100_0000_0000_0000]


@pytest.mark.parametrize("bits", [8, 64, 72, 128])
def test_a_table_reads_back_sorted_and_exact(tmp_path, bits):
    path, written = table_file(tmp_path, bits)
    read = gpd.read_parquet(path)
    assert list(read["tile_id"]) == written["tile_id"].to_pylist()
    expected = {t.id: c for t, c in zip(tiles(30), random_codes(30, bits), strict=True)}
    assert all(
        np.array_equal(code, expected[tile_id])
        for tile_id, code in zip(read["tile_id"], codes_of(read, bits), strict=True)
    )
    columns = pq.read_schema(path).names
    assert columns == [*code_table_schema(bits).names, "geometry", "bbox"]


def test_a_table_is_geoparquet_1_1(tmp_path):
    path, _ = table_file(tmp_path)
    file = pq.ParquetFile(path)
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0" and geo["primary_column"] == "geometry"
    assert column["encoding"] == "WKB" and column["geometry_types"] == ["Polygon"]
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    frame = gpd.read_parquet(path)
    assert frame.crs.to_authority() == ("OGC", "CRS84")
    first = parse_tile_id(frame["tile_id"][0])
    assert shapely.equals_exact(frame.geometry[0], first.footprint, 1e-9)
    everything = tuple(frame.total_bounds)
    assert len(gpd.read_parquet(path, bbox=everything)) == 30
    assert len(gpd.read_parquet(path, bbox=first.centre * 2)) == 1


def test_a_tile_over_the_antimeridian_is_cut_and_its_box_wraps(tmp_path):
    candidates = [t for c in range(60, 130) for t in tiles(1, Zone(1, "N"), column=c, row=100)]
    over = [t for t in candidates if t.footprint.bounds[0] < -180 < t.footprint.bounds[2]]
    path, _ = table_file(tmp_path, some_tiles=over[:1])
    frame = gpd.read_parquet(path)
    assert frame.geometry[0].geom_type == "MultiPolygon"
    assert np.isclose(frame.geometry[0].area, over[0].footprint.area)
    assert frame.total_bounds[0] >= -180 and frame.total_bounds[2] <= 180
    box = pq.read_table(path)["bbox"].to_pylist()[0]
    assert box["xmin"] > 179 and box["xmax"] < -179


def test_plain_sql_ranks_as_the_code_does(tmp_path):
    path, table = table_file(tmp_path, bits=128)
    tile_ids = table["tile_id"].to_pylist()
    query = tile_ids[7]
    found = duckdb.connect().execute(
        """
        SELECT t.tile_id,
               bit_count(xor(t.code_0, q.code_0)) + bit_count(xor(t.code_1, q.code_1)) AS distance
        FROM read_parquet($path) AS t, read_parquet($path) AS q
        WHERE q.tile_id = $query AND t.tile_id <> $query
        ORDER BY distance, t.tile_id
        LIMIT 10
        """,
        {"path": str(path), "query": query},
    )
    codes = codes_of(table, 128)
    distances = hamming_distance(codes[7:8], codes)[0]
    order = [i for i in np.lexsort((tile_ids, distances)) if i != 7][:10]
    assert found.fetchall() == [(tile_ids[i], int(distances[i])) for i in order]


def test_new_codes_are_merged_with_the_published_ones(catalogue, model):
    first = random_codes(20)
    [report] = publish_code_tables(catalogue, model, rows(tiles(20), first))
    assert report == report | {"version": 1, "tiles": 20, "appeared": 20, "changed": 0}

    second = first[:6].copy()
    second[0] ^= np.uint64(0b111)
    seen_again = [*tiles(6), *tiles(2, row=3000)]
    codes = np.concatenate([second, random_codes(2, seed=9)])
    [report] = publish_code_tables(catalogue, model, rows(seen_again, codes, "2024-06-02", "S2B_2"))
    assert report == report | {"version": 2, "tiles": 22, "appeared": 2, "changed": 1}
    assert report["flipped_bits"] == 3 and report["zone"] == "UTM1920-32N"
    table = current(catalogue, model).set_index("tile_id")
    assert len(table) == 22
    assert table.loc[tiles(1)[0].id, "code_0"] == second[0, 0]
    assert list(table.loc[tiles(1)[0].id, "source_scenes"]) == ["S2B_2"]
    assert table.loc[tiles(20)[19].id, "code_0"] == first[19, 0]


@pytest.mark.parametrize("column", [84, 176])
def test_an_item_s_region_grows_with_its_tiles(catalogue, model, column):
    zone = Zone(1, "N")  # whose first columns lie over the antimeridian
    first, more = tiles(4, zone, column, 100), tiles(2, zone, column, 101)
    publish_code_tables(catalogue, model, rows(first, random_codes(4)))
    publish_code_tables(catalogue, model, rows(more, random_codes(2)))
    [item] = items_of(catalogue, model)
    region, bbox = outline([tile.footprint for tile in {*first, *more}])
    assert shapely.area(shapely.symmetric_difference(region, shape(item.geometry))) < 1e-5
    assert np.allclose(item.bbox, bbox, atol=1e-5)
    assert (bbox[0] > bbox[2]) == (column == 84)


def test_zones_without_news_keep_their_item(catalogue, model):
    north, south = tiles(4), tiles(4, Zone(33, "S"))
    publish_code_tables(catalogue, model, rows([*north, *south], random_codes(8)))
    before = {item.properties["grid:code"]: item.id for item in items_of(catalogue, model)}
    same = rows([*north, *south], random_codes(8))
    assert publish_code_tables(catalogue, model, same) == []
    assert publish_code_tables(catalogue, model, same.iloc[:0]) == []
    [report] = publish_code_tables(
        catalogue, model, rows(south, random_codes(4, seed=3), "2024-07-01")
    )
    after = {item.properties["grid:code"]: item.id for item in items_of(catalogue, model)}
    assert report["zone"] == "UTM1920-33S"
    assert after["UTM1920-32N"] == before["UTM1920-32N"]
    assert after["UTM1920-33S"] != before["UTM1920-33S"]


def items_of(catalogue, model):
    return catalogue.items(collection_of(model.model_id))


def test_observations_are_stale_until_their_code_is_published(catalogue, model):
    night_1 = index(tiles(10))
    assert len(stale_observations(catalogue, model.model_id, view_of(night_1))) == 10
    publish_code_tables(catalogue, model, code_rows(night_1, random_codes(10)))
    assert stale_observations(catalogue, model.model_id, view_of(night_1)).empty
    night_2 = pd.concat(
        [index(tiles(3), "2024-06-02", "S2B_2"), night_1.iloc[3:], index(tiles(1, row=9))]
    )
    stale = stale_observations(catalogue, model.model_id, view_of(night_2))
    assert list(stale["tile_id"]) == sorted(t.id for t in [*tiles(3), *tiles(1, row=9)])


def test_a_damaged_table_is_named_with_a_way_out(catalogue, model):
    night = index(tiles(10))
    publish_code_tables(catalogue, model, code_rows(night, random_codes(10)))
    [item] = catalogue.items(f"codes-{model.model_id}")
    path = catalogue.asset_path(item, "embeddings")
    os.truncate(path, 500)
    with pytest.raises(CatalogueError, match=rf"{path.name} cannot be read .*catalog rollback"):
        stale_observations(catalogue, model.model_id, view_of(night))


def test_codes_that_fail_the_check_are_not_published(catalogue, model):
    publish_code_tables(catalogue, model, rows(tiles(4), random_codes(4)))
    before = catalogue.contents()

    def refuse(codes):
        assert codes.table.num_rows == 5
        raise CodeError("all alike")

    more = rows(tiles(1, Zone(33, "N")), random_codes(1))
    with pytest.raises(CodeError, match="all alike"):
        publish_code_tables(catalogue, model, more, check=refuse)
    assert catalogue.contents() == before


def test_two_rows_of_one_tile_are_refused(catalogue, model):
    with pytest.raises(CatalogueError, match="has two codes"):
        publish_code_tables(catalogue, model, rows(tiles(1) * 2, random_codes(2)))


def learned_from(some_tiles, day="2024-06-01", scene="S2A_1", seed=5):
    codes = random_codes(len(some_tiles), seed=seed)
    return code_rows(index(some_tiles, day, scene), codes, LEARNED)


def test_a_labelled_tile_has_its_learned_code_until_it_is_seen_again():
    learned = learned_from(tiles(3))
    same = with_learned_codes(rows(tiles(5), random_codes(5)), learned, 64)
    assert list(same["code_source"]) == ["learned"] * 3 + ["network"] * 2
    assert np.array_equal(codes_of(same, 64)[:3], codes_of(learned, 64))
    assert np.array_equal(codes_of(same, 64)[3:], random_codes(5)[3:])
    assert same["code_0"].dtype == np.uint64
    for day, scene in (("2024-06-02", "S2A_1"), ("2024-06-01", "S2A_1_reprocessed")):
        newer = rows(tiles(5), random_codes(5), day, scene)
        assert with_learned_codes(newer, learned, 64).equals(newer)
    assert with_learned_codes(newer, None, 64) is newer


def test_tables_tell_learned_codes_from_the_network_s(catalogue, model):
    learned = learned_from(tiles(4))
    mixed = with_learned_codes(rows(tiles(10), random_codes(10)), learned, 64)
    publish_code_tables(catalogue, model, mixed)
    [item] = items_of(catalogue, model)
    assert item.properties["rshash:code_source"] == ["learned", "network"]
    assert "4 labelled tiles" in item.properties["processing:lineage"]
    path = item.assets["embeddings"].get_absolute_href()
    assert pq.read_schema(path).metadata[b"rshash:code_source"] == b"learned, network"
    table = current(catalogue, model).set_index("tile_id")
    assert (table.loc[[t.id for t in tiles(4)], "code_source"] == "learned").all()
    assert stale_observations(catalogue, model.model_id, view_of(index(tiles(10)))).empty

    seen_again = rows(tiles(10)[3:4], random_codes(1, seed=8), "2024-06-05", "S2B_9")
    publish_code_tables(catalogue, model, with_learned_codes(seen_again, learned, 64))
    table = current(catalogue, model).set_index("tile_id")
    assert (table["code_source"] == "learned").sum() == 3
    assert table.loc[tiles(4)[3].id, "code_source"] == "network"


def test_learned_codes_of_several_words_are_all_kept():
    codes = random_codes(2, 128, seed=3)
    learned = code_rows(index(tiles(2)), codes, LEARNED)
    kept = with_learned_codes(rows(tiles(2)[::-1], random_codes(2, 128)), learned, 128)
    assert np.array_equal(codes_of(kept, 128), codes[::-1])


def test_only_codes_and_where_they_come_from_are_taken_over_from_learned_ones():
    learned = learned_from(tiles(2)).assign(code_length=1, code_5=7)
    kept = with_learned_codes(rows(tiles(2), random_codes(2)), learned, 64)
    assert list(kept.columns) == list(rows(tiles(2), random_codes(2)).columns)


def test_a_version_tells_what_is_new_in_it(catalogue, model):
    codes = random_codes(6)
    publish_code_tables(catalogue, model, rows(tiles(6), codes))
    [item] = items_of(catalogue, model)
    assert item.properties["rshash:appeared"] == 6 and "changes" not in item.assets

    changed = codes.copy()
    changed[1] ^= np.uint64(0b1011)
    new = pd.concat(
        [
            rows(tiles(1), changed[:1]),
            rows(tiles(3)[1:], changed[1:3], "2024-06-02", "S2B_2"),
            rows(tiles(1, row=3000), codes[:1]),
        ]
    )
    publish_code_tables(catalogue, model, new)
    [item] = items_of(catalogue, model)
    found = {key: item.properties[f"rshash:{key}"] for key in CHANGES}
    assert found == {"appeared": 1, "changed": 1, "flipped_bits": 3}
    table = pq.read_table(item.assets["changes"].get_absolute_href())
    assert table.to_pylist() == [
        {"tile_id": tiles(1, row=3000)[0].id, "flipped_bits": None},
        {"tile_id": tiles(3)[1].id, "flipped_bits": 3},
        {"tile_id": tiles(3)[2].id, "flipped_bits": 0},
    ]


def test_a_version_after_going_back_has_a_number_of_its_own(catalogue, model):
    for day in range(1, 4):
        table = rows(tiles(4), random_codes(4, seed=day), f"2024-06-0{day}")
        publish_code_tables(catalogue, model, table)
    [latest] = catalogue.item_ids(collection_of(model.model_id))
    catalogue.roll_back(collection_of(model.model_id), latest.replace("-v3", "-v1"))
    [report] = publish_code_tables(
        catalogue, model, rows(tiles(4), random_codes(4, seed=1), "2024-06-04")
    )
    assert report == report | {"version": 4, "changed": 0, "flipped_bits": 0}
    [item] = items_of(catalogue, model)
    [before] = item.get_links("predecessor-version")
    assert item.id.endswith("-v4") and str(before.href).endswith("-v1.json")
