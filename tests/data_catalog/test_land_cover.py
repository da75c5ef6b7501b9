import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.vrt
import zarr
from published_world import SENSOR, index, make_model, publish_segment, random_codes
from rasterio.transform import from_origin
from stac_schemas import assert_catalogue_valid
from tiny_source import TinySource

from data_catalog import land_cover
from data_catalog.code_merging import as_arrow
from data_catalog.code_tables import ProposedCodes, code_rows
from data_catalog.current_view import current_view
from data_catalog.demo_world import World, build_world
from data_catalog.errors import GridError, SourceError
from data_catalog.grid import Tile, Zone
from data_catalog.http_server import serve_folder
from data_catalog.labels import load_labels
from data_catalog.land_cover import publish_land_cover, published_land_cover
from data_catalog.legends import legend_of
from data_catalog.quality_gate import assess
from rshash.errors import LabelError
from rshash.quality import Thresholds

MAPS = "tiny-land-cover"
PUBLISHED = f"land-cover-{MAPS}"
FIRST = Tile(Zone(32, "N"), 360, 2778)
CLASSES = [
    {"value": 10, "description": "Tree cover"},
    {"value": 40, "description": "Cropland"},
    {"value": 80, "description": "Permanent water bodies"},
]
NAMES = [entry["description"] for entry in CLASSES]
NUMBERS = [entry["value"] for entry in CLASSES]


pytestmark = pytest.mark.usefixtures("impatient")


def classes_of(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, *NUMBERS], np.uint8), shape)


def add_map(
    source: TinySource, map_id: str, values: np.ndarray, tile: Tile = FIRST, year: int = 2021
) -> None:
    """A map from a tile's north-western corner on, on the tile's own pixels."""
    west, _, _, north = tile.bounds
    moment = datetime(year, 1, 1, tzinfo=UTC)
    item = source.scene(map_id, MAPS, tile.zone.epsg, west, north, {"map": (values, 10)}, moment)
    item.assets["map"].extra_fields["classification:classes"] = CLASSES


def write(source: TinySource) -> str:
    path = source.write()
    record = json.loads((source.folder / MAPS / "collection.json").read_text())
    record |= {
        "title": "Tiny land cover",
        "license": "CC-BY-4.0",
        "providers": [{"name": "Cartographers", "roles": ["producer"]}],
    }
    record["links"].append({"rel": "license", "href": "https://example.com/licence"})
    (source.folder / MAPS / "collection.json").write_text(json.dumps(record))
    return str(path)


def neighbours(count: int, first: Tile = FIRST) -> list[Tile]:
    return [Tile(first.zone, first.column + i, first.row) for i in range(count)]


def ids(tiles: list[Tile]) -> list[str]:
    return [tile.id for tile in tiles]


def shares(values: np.ndarray) -> np.ndarray:
    counts = np.array([(values == number).sum() for number in NUMBERS])
    return counts / counts.sum()


def test_pixels_are_counted_and_never_averaged(catalogue, source):
    values = classes_of((192, 2 * 192))
    add_map(source, "map", values)
    write(source)
    with serve_folder(source.folder) as address:
        report = publish_land_cover(catalogue, f"{address}/catalog.json", MAPS, ids(neighbours(2)))
    assert (report.known, report.mapped, report.unmapped, report.failures) == (0, 2, 0, {})
    found = published_land_cover(catalogue, PUBLISHED)
    assert list(found["tile_id"]) == ids(neighbours(2))
    for i in range(2):
        part = values[:, 192 * i : 192 * (i + 1)]
        np.testing.assert_allclose(found.loc[i, NAMES].astype(float), shares(part), atol=1e-7)
        assert found.loc[i, "mapped_fraction"] == pytest.approx((part > 0).mean())


def test_a_map_in_degrees_is_read_as_its_nearest_pixels(catalogue, tmp_path):
    world = World(tiles=3, row=2768, column=307)
    build_world(tmp_path / "world", 1, world)
    with serve_folder(tmp_path / "world") as address:
        told: list[int] = []
        report = publish_land_cover(
            catalogue,
            f"{address}/catalog.json",
            "esa-worldcover",
            ids(world.all_tiles),
            told.append,
        )
    assert report.mapped == sum(told) == len(world.all_tiles)
    found = published_land_cover(catalogue, "land-cover-esa-worldcover").set_index("tile_id")
    maps = sorted((tmp_path / "world" / "esa-worldcover").glob("*/*.tif"))
    assert len(maps) == 2, "the world lies on both sides of the 48th parallel"
    assert {name for names in found["source_maps"] for name in names} == {
        path.parent.name for path in maps
    }
    for tile in world.all_tiles:
        values = np.zeros((192, 192), np.uint8)
        for path in maps:
            part = nearest_pixels(path, tile)
            values[values == 0] = part[values == 0]
        share = (values == 10).sum() / (values > 0).sum()
        assert found.loc[tile.id, "Tree cover"] == pytest.approx(share, abs=2e-3)


def nearest_pixels(path: Path, tile: Tile) -> np.ndarray:
    west, _, _, north = tile.bounds
    with (
        rasterio.open(path) as file,
        rasterio.vrt.WarpedVRT(
            file,
            crs=f"EPSG:{tile.zone.epsg}",
            transform=from_origin(west, north, 10, 10),
            width=192,
            height=192,
        ) as warped,
    ):
        return warped.read(1)


def test_the_quality_gate_measures_by_land_cover_where_there_is_some(catalogue, source):
    add_map(source, "map", classes_of((192, 24 * 192)))
    add_map(source, "of-one-class", np.full((192, 24 * 192), 10, np.uint8), neighbours(49)[-1])
    model, mapped, alike = make_model(), neighbours(24), neighbours(24, neighbours(49)[-1])
    elsewhere = neighbours(24, neighbours(99)[-1])
    publish_segment(catalogue, "seen", index([*mapped, *alike, *elsewhere]))
    pixels = catalogue.root / f"tiles-{SENSOR}" / "seen" / "pixels.zarr" / "reflectance"
    array = zarr.open_array(pixels, mode="r+")
    flat = np.random.default_rng(0).integers(1, 4000, (72, 3, 1, 1), np.uint16)
    array[:] = np.broadcast_to(flat, array.shape)
    publish_land_cover(catalogue, write(source), MAPS, ids([*mapped, *alike]))
    view = current_view(catalogue, SENSOR)

    def measured(some_tiles: list[Tile]) -> list[str]:
        rows = code_rows(index(some_tiles), random_codes(24)).assign(model_id=model.model_id)
        codes = ProposedCodes(as_arrow(rows, 64), np.zeros(0, np.int64))
        return [one.name for one in assess(catalogue, model, codes, view, Thresholds())]

    assert "MAP by land cover" in measured(mapped)
    for some_tiles in (alike, elsewhere):
        assert measured(some_tiles)[0] == "distinct codes"
        assert "MAP by land cover" not in measured(some_tiles)


def test_tiles_that_are_published_are_not_read_again(catalogue, source):
    add_map(source, "map", classes_of((192, 4 * 192)))
    where = write(source)
    first = publish_land_cover(catalogue, where, MAPS, ids(neighbours(2)))
    shutil.move(source.folder, source.folder.with_name("elsewhere"))
    again = publish_land_cover(catalogue, where, MAPS, ids(neighbours(2)))
    assert (again.known, again.mapped, again.items) == (2, 0, [])
    shutil.move(source.folder.with_name("elsewhere"), source.folder)
    more = publish_land_cover(catalogue, where, MAPS, ids(neighbours(4)))
    assert (more.known, more.mapped) == (2, 2)
    assert catalogue.item_ids(PUBLISHED) == [*first.items, *more.items]
    assert list(published_land_cover(catalogue, PUBLISHED)["tile_id"]) == ids(neighbours(4))


def test_a_run_that_is_cut_off_goes_on_where_it_was(catalogue, source, monkeypatch):
    monkeypatch.setattr(land_cover, "BATCH_BLOCKS", 1)
    add_map(source, "map", classes_of((192, 9 * 192)))
    where = write(source)

    def interrupt(done: int) -> None:
        if len(catalogue.item_ids(PUBLISHED)) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_land_cover(catalogue, where, MAPS, ids(neighbours(9)), interrupt)
    report = publish_land_cover(catalogue, where, MAPS, ids(neighbours(9)))
    assert (report.known, report.mapped) == (8, 1)


def test_a_map_that_cannot_be_read_is_told_and_tried_again(catalogue, source):
    add_map(source, "good", classes_of((192, 192)))
    east = neighbours(9)[8]
    add_map(source, "bad", classes_of((192, 192)), east)
    where = write(source)
    file = source.folder / MAPS / "bad" / "map.tif"
    content = file.read_bytes()
    file.write_bytes(b"no picture")
    report = publish_land_cover(catalogue, where, MAPS, [FIRST.id, east.id])
    assert list(report.failures) == ["bad"] and "asset map" in report.failures["bad"]
    assert report.mapped == 1
    file.write_bytes(content)
    report = publish_land_cover(catalogue, where, MAPS, [FIRST.id, east.id])
    assert (report.known, report.mapped, report.failures) == (1, 1, {})


def test_the_newest_map_of_a_place_is_read(catalogue, source):
    old, new = np.full((192, 192), 10, np.uint8), np.full((192, 192), 40, np.uint8)
    new[:96] = 0
    add_map(source, "of-2020", old, year=2020)
    add_map(source, "of-2021", new, year=2021)
    publish_land_cover(catalogue, write(source), MAPS, [FIRST.id])
    [row] = published_land_cover(catalogue, PUBLISHED).to_dict("records")
    assert row["Cropland"] == 1.0 and row["Tree cover"] == 0.0
    assert row["mapped_fraction"] == 0.5 and list(row["source_maps"]) == ["of-2021"]


def test_a_tile_without_a_map_is_published_as_such(catalogue, source):
    values = classes_of((192, 2 * 192))
    values[:, 192:] = 0
    add_map(source, "map", values)
    tiles = [*neighbours(2), neighbours(50)[-1]]
    report = publish_land_cover(catalogue, write(source), MAPS, ids(tiles))
    assert (report.mapped, report.unmapped) == (1, 2)
    found = published_land_cover(catalogue, PUBLISHED)
    assert list(found["mapped_fraction"] > 0) == [True, False, False]
    assert found.loc[1:, NAMES].isna().all(axis=None)
    assert list(map(list, found["source_maps"])) == [["map"], [], []]
    farther = Tile(FIRST.zone, FIRST.column, FIRST.row + 90)
    report = publish_land_cover(catalogue, str(source.folder), MAPS, [FIRST.id, farther.id])
    assert (report.known, report.unmapped, report.items) == (1, 1, [])


def test_the_record_names_classes_licence_and_maps(catalogue, source):
    add_map(source, "map", classes_of((192, 192)))
    publish_land_cover(catalogue, write(source), MAPS, [FIRST.id])
    [item] = catalogue.items(PUBLISHED)
    assert item.properties["rshash:classes"] == {
        name: [number] for name, number in zip(NAMES, NUMBERS, strict=True)
    }
    assert item.properties["license"] == "CC-BY-4.0"
    assert item.properties["attribution"] == "Tiny land cover by Cartographers (CC-BY-4.0)"
    assert {p["name"] for p in item.properties["providers"]} == {"Cartographers", "rshash"}
    links = {link.rel: str(link.target) for link in item.links}
    assert links["license"] == "https://example.com/licence"
    assert links["derived_from"].endswith(f"{MAPS}/map/map.json")
    record = json.loads((catalogue.root / PUBLISHED / "collection.json").read_text())
    assert record["license"] == "CC-BY-4.0"
    assert record["attribution"] == item.properties["attribution"]


def test_the_records_are_valid(catalogue, source):
    add_map(source, "map", classes_of((192, 192)))
    write(source)
    with serve_folder(source.folder) as address:
        publish_land_cover(catalogue, f"{address}/catalog.json", MAPS, [FIRST.id])
    assert assert_catalogue_valid(catalogue.root) == 3


def test_what_cannot_be_answered_is_refused_before_anything_is_published(catalogue, source):
    add_map(source, "map", classes_of((192, 192)))
    where = write(source)
    with pytest.raises(SourceError, match="its collections are tiny-land-cover"):
        publish_land_cover(catalogue, where, "esa-worldcover", [FIRST.id])
    far = Tile(Zone(10, "S"), 200, 300)
    with pytest.raises(SourceError, match=f"no map of any of the 1 tiles.*{far.id}"):
        publish_land_cover(catalogue, where, MAPS, [far.id])
    with pytest.raises(GridError, match="malformed"):
        publish_land_cover(catalogue, where, MAPS, ["32UQU"])
    source.items[0].assets["map"].extra_fields.clear()
    with pytest.raises(SourceError, match="does not tell what the numbers"):
        publish_land_cover(catalogue, write(source), MAPS, [FIRST.id])
    assert catalogue.collections() == []


def real_legend(shared: Path, collection: str, name: str):
    folder = shared / "data" / "stac-items" / "planetary-computer" / collection
    record = pystac.Collection.from_file(str(folder / "collection.json"))
    return legend_of(record, pystac.Item.from_file(str(folder / f"{name}.json")))


def test_the_legends_of_real_collections(shared):
    legend = real_legend(shared, "esa-worldcover", "ESA_WorldCover_10m_2021_v200_S60W030")
    assert (legend.asset, legend.nodata, len(legend.classes)) == ("map", 0, 11)
    assert legend.classes["Tree cover"] == (10,) and legend.classes["Mangroves"] == (95,)
    legend = real_legend(shared, "io-lulc-annual-v02", "60N-2023")
    assert (legend.asset, legend.nodata, len(legend.classes)) == ("data", 0, 8)
    assert "No Data" not in legend.classes and "Clouds" not in legend.classes
    numbers = np.array([[0, 1, 2], [10, 11, 99]], np.float32)
    names = [None, *legend.classes]
    found = [names[place] for place in legend.class_of(numbers).ravel()]
    assert found == [None, "Water", "Trees", None, "Rangeland", None]


def test_land_cover_makes_labels(catalogue, source):
    values = np.zeros((192, 3 * 192), np.uint8)
    values[:, :192] = 10
    values[:48, :192] = 40
    values[:, 192:384] = 80
    add_map(source, "map", values)
    publish_land_cover(catalogue, write(source), MAPS, ids(neighbours(3)))
    labels = load_labels(catalogue, PUBLISHED, ids(neighbours(3)), 0.2)
    assert labels.tile_ids == tuple(ids(neighbours(2))), "nothing is mapped in the third tile"
    assert labels.classes == tuple(NAMES)
    assert labels.values.tolist() == [[True, True, False], [False, False, True]]
    labels = load_labels(catalogue, PUBLISHED, ids(neighbours(3)), 0.3)
    assert labels.classes == ("Tree cover", "Permanent water bodies"), "no tile is of cropland"
    with pytest.raises(LabelError, match=rf"in {PUBLISHED} are of one class \(Tree cover\)"):
        load_labels(catalogue, PUBLISHED, [FIRST.id], 0.3)
