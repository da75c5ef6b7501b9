import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image
from published_world import BANDS, SENSOR, index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.errors import QueryError
from data_catalog.geoparquet import write_geoparquet
from data_catalog.models import publish_model
from data_catalog.pictures import (
    PAPER,
    UNSEEN,
    Stretch,
    draw_sheet,
    in_colour,
    retrieval_sheet,
    tile_picture,
)
from data_catalog.query import open_codes
from data_catalog.sensors import get_sensor
from data_catalog.stac_items import segment_item

PLACES = tiles(8)
SIDE = 192


def colours_of(n):
    """Tiles that are plainly red, green or blue in turn, uint16 reflectance x 10000."""
    pixels = np.full((n, 3, SIDE, SIDE), 500, np.uint16)
    for i in range(n):
        pixels[i, 2 - i % 3] = 2500
    return pixels


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("pictures") / "catalogue")
    folder = catalogue.asset_folder(f"tiles-{SENSOR}", "night-1")
    group = zarr.create_group(folder / "pixels.zarr", attributes={"pixels": "reflectance"})
    array = group.create_array("reflectance", data=colours_of(8), chunks=(1, 3, SIDE, SIDE))
    array.attrs.update(bands=list(BANDS), scale_factor=1e-4, add_offset=0.0)
    write_geoparquet(folder / "index.parquet", index(PLACES), {})
    item = segment_item("night-1", get_sensor(SENSOR), index(PLACES), BANDS, {}, folder)
    catalogue.publish(f"tiles-{SENSOR}", item)
    model = make_model()
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(PLACES), random_codes(8)))
    return catalogue


def test_a_sheet_shows_the_query_and_its_neighbours_in_their_colours(catalogue, tmp_path):
    codes = open_codes(catalogue)
    path = tmp_path / "new" / "sheet.png"
    result = codes.similar(PLACES[0].id, 7)
    retrieval_sheet(catalogue, codes, result, path)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert sheet.shape[0] < sheet.shape[1]
    assert sheet[300, 300].argmax() == 0, "the first tile is red"
    first = [tile.id for tile in PLACES].index(result["tile_id"][0])
    left = sheet.shape[1] - 30 - 5 * 224 - 4 * 18
    assert sheet[64 + 100, left + 100].argmax() == first % 3


def test_a_tile_without_pixels_is_named(catalogue, tmp_path):
    codes = open_codes(catalogue)
    result = codes.similar(PLACES[0].id, 3)
    result.attrs["query"] = tiles(1, row=3000)[0].id
    with pytest.raises(QueryError, match=r"UTM1920-32N_0176_3000 has no pixels of sentinel-2-l2a"):
        retrieval_sheet(catalogue, codes, result, tmp_path / "sheet.png")


def test_a_sheet_is_a_png_whatever_its_name_and_refused_where_it_cannot_be(catalogue, tmp_path):
    codes = open_codes(catalogue)
    result = codes.similar(PLACES[0].id, 3)
    retrieval_sheet(catalogue, codes, result, tmp_path / "sheet.of-mine")
    with Image.open(tmp_path / "sheet.of-mine") as sheet:
        assert sheet.format == "PNG"
    with pytest.raises(QueryError, match=r"cannot be written to .*sheet\.of-mine/sheet\.png"):
        retrieval_sheet(catalogue, codes, result, tmp_path / "sheet.of-mine" / "sheet.png")


@pytest.mark.parametrize("neighbours", [0, 1, 5, 12])
def test_a_sheet_of_any_number_of_neighbours_holds_them_all(neighbours):
    frame = pd.DataFrame(
        {"tile_id": [t.id for t in tiles(neighbours)], "distance": 1, "away_km": 12.3}
    )
    pixels = np.random.default_rng(0).random((1 + neighbours, 3, 16, 16), np.float32)
    days = ["2024-06-01"] * (1 + neighbours)
    sheet = np.asarray(
        draw_sheet({"UTM1920-32N_0177_2891": "it"}, pixels, frame, days, ["title"], "credit")
    )
    blank = np.asarray(draw_sheet({"x": "it"}, pixels * np.nan, frame, days, ["title"], "credit"))
    assert sheet.shape == blank.shape
    grey = (blank == UNSEEN).all(-1).sum()
    assert grey == (512 - 2 * 4) ** 2 + neighbours * 224**2


def test_a_sheet_of_examples_shows_all_of_them(catalogue, tmp_path):
    codes = open_codes(catalogue)
    like, unlike = [PLACES[i].id for i in (1, 5, 3)], [PLACES[2].id]
    result = codes.similar_to_examples(like, unlike, 3)
    retrieval_sheet(catalogue, codes, result, tmp_path / "sheet.png", like, unlike)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    step_x, step_y = 224 + 18, 224 + 46 + 18
    corners = [(64 + step_y * (i // 2), 30 + step_x * (i % 2)) for i in range(4)]
    assert [sheet[y + 100, x + 100].argmax() for y, x in corners] == [1, 2, 0, 2]
    frames = [tuple(sheet[corner]) for corner in corners]
    assert frames[0] == frames[1] == frames[2] != frames[3]


def test_one_stretch_keeps_hues_and_takes_haze_away():
    haze = np.array([0.02, 0.04, 0.08], np.float32)[:, None, None]
    ground = np.linspace(0, 0.3, 64, dtype=np.float32).reshape(8, 8)
    pixels = (ground + haze)[None]
    colours = Stretch.of(pixels).apply(pixels[0])
    assert np.ptp(colours.astype(int), axis=-1).max() <= 2, "grey ground stays grey"
    assert colours.min() == 0 and colours.max() == 255


def test_clouds_do_not_darken_the_ground():
    ground = np.random.default_rng(0).uniform(0, 0.15, (4, 3, 32, 32)).astype(np.float32)
    clouded = ground.copy()
    clouded[:, :, :8] = 0.9
    clear, cloudy = Stretch.of(ground), Stretch.of(clouded)
    assert cloudy.span == pytest.approx(clear.span, rel=0.02)
    snow = np.full((1, 3, 8, 8), 0.6, np.float32) + np.linspace(0, 0.3, 8, dtype=np.float32)
    assert np.ptp(Stretch.of(snow).apply(snow[0])) > 200


def test_calm_water_is_not_drawn_as_structure():
    water = 0.02 + np.random.default_rng(0).normal(0, 0.001, (4, 3, 32, 32)).astype(np.float32)
    assert Stretch.of(water).apply(water[0]).max() < 80


def test_unseen_pixels_are_grey():
    tile = np.full((3, 8, 8), 0.1, np.float32)
    tile[:, :4] = np.nan
    picture = np.asarray(tile_picture(tile, Stretch((0.0,) * 3, (0.3,) * 3), 8))
    assert tuple(picture[0, 0]) == UNSEEN and tuple(picture[7, 7]) != UNSEEN
    nothing = np.full((1, 3, 8, 8), np.nan, np.float32)
    assert (Stretch.of(nothing).apply(nothing[0]) == UNSEEN).all()


def test_bands_that_are_no_reflectance_are_stretched_each_on_its_own():
    rng = np.random.default_rng(0)
    decibels = rng.normal([-11, -18], [3, 4], (4, 32, 32, 2)).astype(np.float32)
    tiles_ = in_colour(np.moveaxis(decibels, -1, 1))
    assert tiles_.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(tiles_[:, 2], tiles_[:, 0] - tiles_[:, 1])
    stretch = Stretch.of(tiles_, true_colour=False)
    colours = np.stack([stretch.apply(tile) for tile in tiles_]).reshape(-1, 3)
    for band in range(3):
        low, middle, high = np.percentile(colours[:, band], [1, 50, 99])
        assert low < 20 and 100 < middle < 155 and high > 235


def test_one_band_is_shown_in_grey():
    tile = np.linspace(-20, 0, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    grey = in_colour(tile)
    colours = Stretch.of(grey, true_colour=False).apply(grey[0])
    assert np.ptp(colours.astype(int), axis=-1).max() == 0 and np.ptp(colours) > 200


def test_lines_above_the_neighbours_stay_on_the_sheet():
    frame = pd.DataFrame({"tile_id": ["x"], "distance": 1, "away_km": 12.3})
    pixels = np.zeros((2, 3, 16, 16), np.float32)
    sheet = draw_sheet({"it": "it"}, pixels, frame, ["2024-06-01"] * 2, ["short", "long " * 40], "")
    columns = (np.asarray(sheet)[30:64] != PAPER).any((0, 2)).nonzero()[0]
    assert 0.8 * sheet.width < columns.max() < sheet.width - 10
