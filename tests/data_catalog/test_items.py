import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from published_world import (
    SCENES,
    SENSOR,
    index,
    make_model,
    publish_segment,
    random_codes,
    tiles,
)
from stac_schemas import assert_catalogue_valid, assert_valid

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import LEARNED, code_rows, publish_code_tables
from data_catalog.geometry import outline
from data_catalog.grid import Zone, footprints, tile_at
from data_catalog.models import load_model, publish_model, publish_pseudo_labels
from data_catalog.stac_collections import union_of_boxes


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("world") / "catalogue")
    publish_segment(catalogue, "night-1", index(tiles(20), "2023-12-31", "S2A_1"))
    publish_segment(catalogue, "night-2", index(tiles(6), "2024-01-02", "S2B_2"))
    model = make_model()
    publish_model(catalogue, model, code_rows(index(tiles(5)), random_codes(5), LEARNED))
    labelled = [tile.id for tile in tiles(20)]
    publish_pseudo_labels(catalogue, model, labelled, np.full((20, 4), 0.25, np.float32))
    for day, scene, count in [("2023-12-31", "S2A_1", 20), ("2024-01-02", "S2B_2", 6)]:
        rows = code_rows(index(tiles(count), day, scene), random_codes(count, seed=count))
        publish_code_tables(catalogue, model, rows)
    return catalogue


def model_id(catalogue):
    return catalogue.latest_model_id()


def test_every_published_record_is_valid_and_every_link_leads_somewhere(catalogue):
    assert assert_catalogue_valid(catalogue.root) == 1 + 4 + 2 + 1 + 1 + 2


def test_a_record_that_breaks_an_extension_is_noticed(catalogue):
    item = catalogue.items(f"codes-{model_id(catalogue)}")[0].to_dict()
    item["properties"]["emb:bits"] = 64
    with pytest.raises(AssertionError, match="embeddings"):
        assert_valid(item)


def test_licences_travel_with_the_years_of_the_scenes(catalogue):
    expected = "Contains modified Copernicus Sentinel data [2023, 2024]"
    codes = f"codes-{model_id(catalogue)}"
    item = catalogue.items(codes)[-1]
    assert item.properties["attribution"] == expected
    assert {"ESA", "rshash"} <= {p["name"] for p in item.properties["providers"]}
    assert [link.rel for link in item.links].count("license") == 1
    record = json.loads((catalogue.root / codes / "collection.json").read_text())
    assert record["attribution"] == expected and record["license"] == "other"
    path = item.assets["embeddings"].get_absolute_href()
    assert pq.read_schema(path).metadata[b"attribution"].decode() == expected
    tiles_record = json.loads((catalogue.root / f"tiles-{SENSOR}" / "collection.json").read_text())
    assert tiles_record["attribution"] == expected
    model = catalogue.item("models", model_id(catalogue))
    assert model.properties["attribution"].startswith(expected)


def test_code_tables_are_derived_from_their_scenes_and_their_model(catalogue):
    item = catalogue.items(f"codes-{model_id(catalogue)}")[-1]
    derived = [str(link.target) for link in item.links if link.rel == "derived_from"]
    assert f"{SCENES}/S2A_1" in derived and f"{SCENES}/S2B_2" in derived
    assert any(model_id(catalogue) in href for href in derived)


def test_extents_grow_with_what_is_published(catalogue):
    record = json.loads((catalogue.root / f"tiles-{SENSOR}" / "collection.json").read_text())
    assert record["extent"]["temporal"]["interval"] == [
        ["2023-12-31T00:00:00Z", "2024-01-02T00:00:00Z"]
    ]
    west, south, east, north = record["extent"]["spatial"]["bbox"][0]
    first = tiles(1)[0].centre
    assert west < first[0] < east and south < first[1] < north


def test_a_published_model_comes_back_as_it_was(catalogue):
    model = load_model(catalogue)
    assert model.model_id == model_id(catalogue)
    tiles = np.random.default_rng(0).random((5, 3, 16, 16), np.float32)
    assert np.array_equal(model.encode(tiles), make_model().encode(tiles))


def test_publishing_a_model_again_changes_nothing(catalogue):
    before = catalogue.contents()
    publish_model(catalogue, load_model(catalogue))
    assert catalogue.contents() == before


def edge_tiles():
    """Tiles at 20° south, on both sides of the antimeridian and over it."""
    west, east = Zone(60, "S"), Zone(1, "S")
    last = int(west.project(180.0, -20.0)[0] // 1920)
    first = int(east.project(-180.0, -20.0)[0] // 1920)
    return [*tiles(3, west, column=last - 2, row=1152), *tiles(3, east, column=first, row=1152)]


def test_tiles_on_both_sides_of_the_antimeridian_make_a_valid_item(tmp_path):
    catalogue = Catalogue.create(tmp_path)
    publish_segment(catalogue, "pacific", index(edge_tiles()))
    item = catalogue.items(f"tiles-{SENSOR}")[0].to_dict()
    assert_valid(item)
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180 and -180 < east < -179
    assert item["geometry"]["type"] == "MultiPolygon" and item["properties"]["proj:code"] is None
    assert_catalogue_valid(catalogue.root)


def test_the_outline_of_a_world_wide_segment_holds_every_part():
    places = [*edge_tiles(), tile_at(0.0, 10.0), tile_at(100.0, 10.0)]
    region, (west, south, east, north) = outline(footprints(places))
    assert (west, east) == (pytest.approx(0, abs=0.1), pytest.approx(-180, abs=1)) and west > east
    assert south < 0 < north
    for tile in places:
        lon, lat = tile.centre
        assert region.buffer(1e-6).contains(shapely.Point((lon + 180) % 360 - 180, lat))


def test_the_hull_of_many_tiles_around_the_antimeridian_stays_small():
    rng = np.random.default_rng(0)
    lons, lats = 179.5 + rng.random(1200), -17.0 + rng.random(1200)
    tiles = {tile_at(lon, lat) for lon, lat in zip(lons, lats, strict=True)}
    region, (west, _, east, _) = outline(footprints(sorted(tiles)))
    assert region.area < 1.2
    assert (west, east) == pytest.approx((179.5, -179.5), abs=0.05)


BOXES = st.lists(
    st.tuples(st.floats(-180, 179), st.floats(-80, 70), st.floats(0.01, 60), st.floats(0.01, 10)),
    min_size=1,
    max_size=4,
)


@given(BOXES)
def test_an_extent_covers_all_boxes_and_is_no_wider_than_it_need_be(boxes) -> None:
    def pole_to_pole(west: float, east: float) -> list[tuple[float, float]]:
        return [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]

    bboxes = [
        [west, south, west + w if west + w <= 180 else west + w - 360, south + h]
        for west, south, w, h in boxes
    ]
    west, south, east, north = union_of_boxes(bboxes)
    assert (south, north) == (min(b[1] for b in bboxes), max(b[3] for b in bboxes))
    for box in bboxes:
        for one, other in pole_to_pole(box[0], box[2]):
            assert any(a - 1e-9 <= one and other <= b + 1e-9 for a, b in pole_to_pole(west, east))
    width = (east - west) % 360 if west > east else east - west
    if not any(b[0] > b[2] for b in bboxes):
        assert width <= max(b[2] for b in bboxes) - min(b[0] for b in bboxes) + 1e-9


def test_an_extent_over_the_antimeridian_is_small() -> None:
    fiji = [[177.0, -19.0, 180.0, -16.0], [-180.0, -20.0, -178.5, -16.0]]
    assert union_of_boxes(fiji) == [177.0, -20.0, -178.5, -16.0]
    assert union_of_boxes([[177.0, -19.0, -178.5, -16.0]]) == [177.0, -19.0, -178.5, -16.0]
    far = [[-10.0, 0.0, 20.0, 1.0], [170.0, 0.0, 175.0, 1.0]]
    assert union_of_boxes(far) == [-10.0, 0.0, 175.0, 1.0]
    assert union_of_boxes([[-180.0, 0.0, 180.0, 1.0], *fiji])[::2] == [-180.0, 180.0]
