"""The map of tiles that changed: read from published versions, drawn where the tiles are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image, ImageDraw
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles

from data_catalog import change_map
from data_catalog.catalogue import Catalogue
from data_catalog.change_map import (
    BEFORE,
    FLIPPED,
    HEADER,
    NEW,
    SAME,
    Changes,
    draw_changes,
    read_changes,
)
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.grid import Tile, Zone, footprints
from data_catalog.models import publish_model
from data_catalog.pictures import PAPER

LEAST, MOST = (tuple(int(v) for v in FLIPPED[i]) for i in (0, -1))


def changes_of(some: list[Tile], flips: list[float], around: list[Tile] | None = None) -> Changes:
    table = pd.DataFrame({"tile_id": [tile.id for tile in some], "flipped_bits": flips})
    return Changes(table, 64, shapely.bounds(footprints(around or some)))


def columns_of(picture: Image.Image, colour: tuple[int, ...]) -> np.ndarray:
    """Columns of the map, without the legend, that have a colour."""
    pixels = np.asarray(picture)[HEADER + 1 : -80]
    return np.flatnonzero((pixels == colour).all(-1).any(0))


def test_every_kind_of_change_has_its_colour_in_its_place() -> None:
    row = tiles(5)
    picture = draw_changes(changes_of(row[:4], [np.nan, 0, 1, 20], row), "Changes")
    spans = [columns_of(picture, colour) for colour in (NEW, SAME, LEAST, MOST, BEFORE)]
    assert all(len(span) for span in spans)
    ends = [int(span.max()) for span in spans]
    assert ends == sorted(ends)


def test_tiles_on_both_sides_of_the_antimeridian_are_side_by_side() -> None:
    east, west = Tile(Zone(60, "S"), 424, 950, 1920), Tile(Zone(1, "S"), 98, 950, 1920)
    lons = [tile.centre[0] for tile in (east, west)]
    assert lons[0] > 179 and lons[1] < -179
    picture = draw_changes(changes_of([east, west], [np.nan, 0]), "Changes")
    assert columns_of(picture, NEW).max() < columns_of(picture, SAME).min()


def test_a_changed_tile_in_a_wide_area_is_seen() -> None:
    far = [tiles(1)[0], Tile(Zone(33, "N"), 400, 2000, 1920)]
    picture = draw_changes(changes_of(far, [np.nan, np.nan], tiles(64)), "Changes")
    assert 4 <= len(columns_of(picture, NEW)) <= 8


def test_small_tiles_are_painted_as_if_drawn_one_by_one() -> None:
    random = np.random.default_rng(0)
    middles = random.uniform(4, 60, (900, 2))
    flips = random.choice([np.nan, *range(12)], 900)
    painted = np.full((64, 66, 3), PAPER, np.uint8)
    change_map._paint_dots(painted, middles, flips, 11)
    picture = Image.new("RGB", (66, 64), PAPER)
    draw = ImageDraw.Draw(picture)
    for row in np.argsort(np.nan_to_num(flips, nan=-1)):
        x, y = middles[row].astype(int).tolist()
        colour = tuple(change_map._colours(flips[row : row + 1], 11)[0].tolist())
        draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=colour)
    np.testing.assert_array_equal(painted, np.asarray(picture))


def test_boxes_cover_what_they_cover_one_by_one() -> None:
    random = np.random.default_rng(0)
    places = random.uniform(-20, 80, (300, 2))
    boxes = np.hstack([places, places + random.exponential(3, (300, 2))])
    boxes[::50, [0, 2]] = boxes[::50, [2, 0]]  # over the antimeridian
    expected = np.zeros((50, 60), bool)
    for left, top, right, bottom in np.floor(boxes[boxes[:, 2] > boxes[:, 0]]).astype(int):
        rows, columns = range(top, max(bottom, top + 1)), range(left, max(right, left + 1))
        inside = np.ix_(
            [row for row in rows if 0 <= row < 50],
            [column for column in columns if 0 <= column < 60],
        )
        expected[inside] = True
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(change_map._covered(boxes, expected.shape), expected)


def test_corners_are_those_of_the_tiles_in_their_order() -> None:
    some = [*tiles(9)[::-1], Tile(Zone(1, "S"), 98, 950, 960), *tiles(3, Zone(60, "N"))]
    found = change_map._corners(pd.Series([tile.id for tile in some], dtype="str"))
    rings = [shapely.get_coordinates(tile.footprint)[:-1] for tile in some]
    np.testing.assert_array_equal(found, rings)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    publish_segment(catalogue, "one", index(tiles(6)))
    publish_model(catalogue, make_model())
    return catalogue


def test_changes_are_read_from_what_is_published(catalogue: Catalogue) -> None:
    model, codes = make_model(), random_codes(6)
    seen = index(tiles(6))
    (first,) = publish_code_tables(catalogue, model, code_rows(seen[:5], codes[:5]))
    later = index(tiles(6), "2024-07-01")
    codes[1] ^= np.uint64(0b1011)
    (second,) = publish_code_tables(catalogue, model, code_rows(later[1:], codes[1:]))
    assert model.primary_sensor == SENSOR
    collection = collection_of(model.model_id)
    before, after = (
        read_changes(catalogue, [catalogue.item(collection, row["item"])])
        for row in (first, second)
    )
    assert before.tiles["flipped_bits"].isna().all() and len(before.tiles) == 5
    flips = after.tiles.set_index("tile_id")["flipped_bits"]
    assert flips.drop(tiles(6)[5].id).tolist() == [3, 0, 0, 0] and np.isnan(flips[tiles(6)[5].id])
    assert after.most_flipped["tile_id"].tolist() == [tiles(6)[1].id]
    assert after.bits == 64 and len(after.before) == 6
