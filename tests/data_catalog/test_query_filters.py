from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from published_world import index, make_model, random_codes, tiles
from pyproj import Geod

from data_catalog import geoparquet, query_search
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.errors import GridError, QueryError
from data_catalog.grid import Zone
from data_catalog.grid import tiles_at as grid_tiles_at
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.query_filters import Filters

AT_ANTIMERIDIAN = grid_tiles_at([179.98, -179.98, 179.8, -179.8], [-17.0, -17.0, -17.0, -17.0])
PLACES = [*tiles(150), *tiles(60, Zone(33, "S")), *AT_ANTIMERIDIAN]
RANDOM = np.random.default_rng(4)
# Few distinct codes, so that ties are many.
CODES = random_codes(9, seed=5)[RANDOM.integers(0, 9, len(PLACES))]
DAYS = pd.Timestamp("2024-06-01", tz="UTC") + pd.to_timedelta(
    RANDOM.integers(0, 60, len(PLACES)), "D"
)
CLEAR = RANDOM.random(len(PLACES)).astype(np.float32)
GLOBE = Geod(ellps="WGS84")


@pytest.fixture(scope="module")
def codes(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("filters") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    observed = index(PLACES).assign(datetime=DAYS, clear_fraction=CLEAR)
    with pytest.MonkeyPatch.context() as patch:
        # Several row groups in each table.
        patch.setattr(geoparquet, "ROW_GROUP_ROWS", 16)
        publish_code_tables(catalogue, model, code_rows(observed, CODES))
    return open_codes(catalogue)


def metres(a, b):
    return GLOBE.inv(*a.centre, *b.centre)[2]


def by_hand(which, k, filters, radius=64):
    own = PLACES[which]
    ranked = []
    for i, tile in enumerate(PLACES):
        distance = int(np.bitwise_count(CODES[i] ^ CODES[which]).sum())
        if tile == own or distance > radius:
            continue
        if filters.region is not None and not filters.region.covers(shapely.Point(tile.centre)):
            continue
        if filters.period and not filters.period[0] <= DAYS[i] <= filters.period[1]:
            continue
        if CLEAR[i] < np.float32(filters.minimum_clear):
            continue
        if metres(own, tile) < filters.minimum_distance_m:
            continue
        if filters.outside_block and tile.block == own.block:
            continue
        ranked.append((distance, tile.id))
    return [(tile_id, distance) for distance, tile_id in sorted(ranked)[:k]]


def found(result):
    return list(zip(result["tile_id"], result["distance"], strict=True))


def moment(day: int) -> datetime:
    return datetime(2024, 6, 1 + day, tzinfo=UTC) if day < 30 else datetime(2024, 7, 30, tzinfo=UTC)


REGIONS = [
    None,
    shapely.box(6.78, 47.0, 10.0, 50.2),
    shapely.Polygon([(3.0, 40.0), (12.0, 40.0), (6.8, 50.2)]),
    shapely.box(-180.0, -80.0, 180.0, 0.0),
    shapely.box(20.0, 20.0, 21.0, 21.0),
]
FILTERS = st.builds(
    Filters,
    region=st.sampled_from(REGIONS),
    period=st.none()
    | st.tuples(st.integers(0, 20), st.integers(20, 40)).map(lambda p: tuple(map(moment, p))),
    minimum_clear=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    minimum_distance_m=st.sampled_from([0.0, 1.0, 1921.0, 12_345.6, 4e6, 2e7]),
    outside_block=st.booleans(),
)


@pytest.mark.parametrize("few", [0, 4096])
@settings(max_examples=60, deadline=None)
@given(
    which=st.integers(0, len(PLACES) - 1),
    k=st.sampled_from([1, 5, 300]),
    radius=st.sampled_from([None, 0, 20, 33]),
    filters=FILTERS,
)
def test_what_filters_let_through_is_found_exactly(codes, few, which, k, radius, filters):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_search, "FEW_EXCLUDED", few)
        result = codes.similar(PLACES[which].id, k, radius=radius, filters=filters)
    assert found(result) == by_hand(which, k, filters, 64 if radius is None else radius)


def test_a_batch_answers_as_its_queries_do(codes):
    asked = [PLACES[i].id for i in (0, 170, 3)]
    filters = Filters(minimum_distance_m=4000.0, minimum_clear=0.2)
    together = codes.similar_many(asked, 7, radius=40, filters=filters)
    assert together.columns[0] == "query"
    for tile_id in asked:
        alone = codes.similar(tile_id, 7, radius=40, filters=filters)
        rows = together[together["query"] == tile_id].drop(columns="query")
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), alone)


def test_codes_are_queries_too(codes):
    unseen = random_codes(3, seed=77)
    result = codes.similar_to_codes(unseen, 6, filters=Filters(minimum_clear=0.5))
    for i, code in enumerate(unseen):
        expected = sorted(
            (int(np.bitwise_count(code ^ own).sum()), tile.id)
            for tile, own, clear in zip(PLACES, CODES, CLEAR, strict=True)
            if clear >= 0.5
        )[:6]
        rows = result[result["query"] == i]
        assert list(zip(rows["distance"], rows["tile_id"], strict=True)) == expected
    assert result["away_km"].isna().all()
    with pytest.raises(QueryError, match=r"64 bits.*one and the same model compare"):
        codes.similar_to_codes(random_codes(1, 128))
    with pytest.raises(QueryError, match="has no place"):
        codes.similar_to_codes(unseen, filters=Filters(outside_block=True))


def test_more_like_these_less_like_those(codes):
    like, unlike = [0, 7], [9]
    ids = [PLACES[i].id for i in (*like, *unlike)]
    result = codes.similar_to_examples(
        ids[:2], ids[2:], 20, filters=Filters(minimum_distance_m=2500)
    )
    ranked = []
    for i, tile in enumerate(PLACES):
        if any(metres(PLACES[j], tile) < 2500 for j in (*like, *unlike)):
            continue
        bits = [int(np.bitwise_count(CODES[i] ^ CODES[j]).sum()) for j in (*like, *unlike)]
        ranked.append(((bits[0] + bits[1]) / 2 - bits[2] / 2, tile.id))
    assert list(zip(result["distance"], result["tile_id"], strict=True)) == sorted(ranked)[:20]
    assert result.attrs["query"] == ids[0]
    with pytest.raises(QueryError, match="at least one tile"):
        codes.similar_to_examples([])


def test_a_place_has_its_tile(codes):
    assert codes.tile_at(*PLACES[5].centre) == PLACES[5].id
    with pytest.raises(QueryError, match=r"nearest tile that has one is UTM1920-32N_01"):
        codes.tile_at(9.9, 49.0)
    with pytest.raises(GridError, match="84° N"):
        codes.tile_at(9.0, 88.0)


def test_a_tile_tells_what_is_published_of_it(codes):
    tile = codes.tile(PLACES[160].id)
    assert tile["tile_id"] == PLACES[160].id
    assert tile["code"] == f"{CODES[160, 0]:016x}"
    assert tile["datetime"] == DAYS[160]
    assert tile["clear_fraction"] == pytest.approx(CLEAR[160])
    assert (tile["code_source"], tile["source_scenes"]) == ("network", ["S2A_1"])
    assert (tile["lon"], tile["lat"]) == PLACES[160].centre
    assert tile["geometry"].equals(PLACES[160].footprint)


def test_a_map_gets_the_tiles_of_its_box(codes):
    box = (6.78, 47.0, 10.0, 50.2)
    inside = {t.id for t in PLACES if shapely.box(*box).covers(shapely.Point(t.centre))}
    shown = codes.within(box, 1000)
    assert set(shown["tile_id"]) == inside
    assert shown.attrs["total"] == len(inside) > 5
    few = codes.within(box, 5)
    assert (len(few), few.attrs["total"]) == (5, len(inside))
    assert set(few["tile_id"]) < inside
    over = codes.within((179.5, -17.5, -179.5, -16.5))
    assert set(over["tile_id"]) == {tile.id for tile in AT_ANTIMERIDIAN}
    assert not len(codes.within((20.0, 20.0, 21.0, 21.0)))
    with pytest.raises(QueryError, match="limit is 0"):
        codes.within(box, 0)


def test_a_tile_of_another_size_is_told_the_size_of_the_codes(codes):
    with pytest.raises(QueryError, match=r"960 m on a side.*of 1920 m.*--size 1920"):
        codes.similar("UTM960-32N_0352_5776")


def test_filters_out_of_range_are_refused():
    for bad, says in [
        ({"minimum_clear": 1.1}, "0 to 1"),
        ({"minimum_clear": float("nan")}, "0 to 1"),
        ({"minimum_distance_m": -1.0}, "at least 0 m"),
        ({"region": shapely.Polygon()}, "must be a surface"),
        ({"region": shapely.Point(9, 48)}, "must be a surface"),
        ({"period": (moment(9), moment(2))}, "ends .* before it starts"),
    ]:
        with pytest.raises(QueryError, match=says):
            Filters(**bad)
    naive = datetime(2024, 6, 1)
    assert Filters(period=(naive, naive)).period == (moment(0), moment(0))


def test_the_version_names_what_was_opened(tmp_path):
    catalogue = Catalogue.create(tmp_path)
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES[:3]), CODES[:3]))
    first = open_codes(catalogue)
    assert open_codes(catalogue).version == first.version
    publish_code_tables(catalogue, model, code_rows(index(PLACES[3:5]), CODES[3:5]))
    second = open_codes(catalogue)
    assert second.version != first.version
    assert (len(first), len(second)) == (3, 5)


def test_filters_say_what_they_are():
    june, july = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)
    first, last = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    everything = Filters(shapely.box(9.9, 47.8, 10.4, 48.2), (june, july), 0.9, 5000, True)
    assert str(Filters()) == ""
    assert str(everything) == (
        "at least 5 km away, in other blocks, in a region within 9.9,47.8,10.4,48.2, "
        "observed from 2024-06-01 to 2024-07-01, 90% clear or more"
    )
    assert str(Filters(period=(first, july))) == "observed to 2024-07-01"
    assert str(Filters(period=(june, last))) == "observed from 2024-06-01"
