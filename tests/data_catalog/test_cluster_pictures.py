import numpy as np
import pytest
import zarr
from PIL import Image
from published_world import SENSOR, index, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.cluster_pictures import (
    HEADER,
    LAYOUTS,
    MARGIN,
    cluster_picture,
    draw_clusters,
    layout_for,
    typical_tiles,
)
from data_catalog.geoparquet import write_geoparquet
from data_catalog.grid import tile_at
from data_catalog.pictures import UNSEEN
from data_catalog.sensors import get_sensor
from data_catalog.stac_items import segment_item

SIDE = 192
PLACES = tiles(24)
IDS = [tile.id for tile in PLACES]


def segment(catalogue: Catalogue, pixels: np.ndarray, bands: tuple[str, ...]) -> None:
    folder = catalogue.asset_folder(f"tiles-{SENSOR}", "night")
    group = zarr.create_group(folder / "pixels.zarr", attributes={"pixels": "reflectance"})
    array = group.create_array("reflectance", data=pixels, chunks=(1, *pixels.shape[1:]))
    array.attrs.update(bands=list(bands), scale_factor=1e-4, add_offset=0.0)
    table = index(PLACES[: len(pixels)])
    write_geoparquet(folder / "index.parquet", table, {})
    item = segment_item("night", get_sensor(SENSOR), table, bands, {}, folder)
    catalogue.publish(f"tiles-{SENSOR}", item)


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue.create(tmp_path / "catalogue")


def coloured(count: int) -> np.ndarray:
    """Tiles that are red, green or blue in turn, uint16 (n, blue-green-red, y, x)."""
    pixels = np.full((count, 3, SIDE, SIDE), 500, np.uint16)
    for i in range(count):
        pixels[i, 2 - i % 3] = 2500
    return pixels


def one_hot(clusters: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[clusters]


def first_tile(picture: Image.Image, card: int, clusters: int) -> np.ndarray:
    """Colour in the middle of a card's first tile."""
    layout = layout_for(clusters)
    gap = max(2, layout.cell // 32)
    step_x = layout.examples * (layout.cell + gap) - gap + layout.cell // 2
    step_y = layout.cell + layout.caption + layout.cell // 5
    x = MARGIN + card % layout.columns * step_x + layout.cell // 2
    y = HEADER + card // layout.columns * step_y + layout.caption + layout.cell // 2
    return np.asarray(picture)[y, x].astype(int)


def test_the_most_typical_tiles_of_a_cluster_are_those_it_is_surest_of():
    probabilities = np.array(
        [[0.6, 0.4, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0.55, 0.45, 0], [0.9, 0.1, 0]], np.float32
    )
    names = ["e", "d", "c", "b", "a"]
    assert typical_tiles(names, probabilities, 3) == [["a", "d", "e"], ["c"], []]


def test_each_cluster_shows_its_own_tiles_the_largest_first(catalogue):
    segment(catalogue, coloured(24), ("blue", "green", "red"))
    kinds = np.arange(24) % 3
    kinds[:9][kinds[:9] == 0] = 2  # blue and red tiles share a cluster: it is the largest
    picture = cluster_picture(catalogue, SENSOR, IDS, one_hot(kinds, 5))
    assert first_tile(picture, 1, 3).argmax() == 1, "8 green tiles"
    assert first_tile(picture, 2, 3).argmax() == 0, "5 red tiles"
    assert picture.width < 2400


def test_pixels_and_tiles_that_are_missing_are_grey(catalogue):
    pixels = coloured(3)
    pixels[1, :, :, : SIDE // 2] = 0
    segment(catalogue, pixels, ("blue", "green", "red"))
    elsewhere = tile_at(20.0, 10.0).id
    picture = cluster_picture(
        catalogue, SENSOR, [*IDS[:3], elsewhere], one_hot(np.array([0, 1, 2, 3]), 4)
    )
    grey = (np.asarray(picture) == UNSEEN).all(-1)
    cell = layout_for(4).cell
    assert cell * cell * 1.3 < grey.sum() < cell * cell * 1.7
    assert tuple(first_tile(picture, 3, 4)) == UNSEEN


def test_a_sensor_without_true_colour_is_drawn_in_grey_levels(catalogue):
    pixels = np.random.default_rng(0).integers(500, 4000, (6, 2, SIDE, SIDE)).astype(np.uint16)
    segment(catalogue, pixels, ("nir", "swir16"))
    picture = cluster_picture(catalogue, SENSOR, IDS[:6], one_hot(np.arange(6) % 2, 2))
    colours = first_tile(picture, 0, 2)
    assert np.ptp(colours) <= 2


@pytest.mark.parametrize("clusters", [1, 2, 16, 17, 64, 65, 256])
def test_any_number_of_clusters_fits_a_page(clusters):
    layout = layout_for(clusters)
    tile = np.full((3, 8, 8), 0.2, np.float32)
    tile[:, :4] = 0.05
    examples = [f"{k}-{i}" for k in range(clusters) for i in range(layout.examples)]
    cards = [
        (k, 1 / clusters, examples[k * layout.examples : (k + 1) * layout.examples])
        for k in range(clusters)
    ]
    unseen = draw_clusters(cards, {}, layout, "title", "credit")
    seen = draw_clusters(cards, dict.fromkeys(examples, tile), layout, "title", "credit")
    assert seen.size == unseen.size and max(seen.size) <= 3300
    grey = (np.asarray(unseen) == UNSEEN).all(-1).sum()
    assert grey == len(examples) * layout.cell**2, "no tile covers another or leaves the page"


def test_of_too_many_clusters_the_largest_are_shown(catalogue):
    segment(catalogue, coloured(3), ("blue", "green", "red"))
    count = LAYOUTS[-1].clusters + 40
    names = [f"{i}" for i in range(count + 1)]
    kinds = np.array([*range(count), count - 1])
    picture = cluster_picture(catalogue, SENSOR, names, one_hot(kinds, count))
    assert max(picture.size) <= 3300


def test_empty_clusters_take_no_room(catalogue):
    segment(catalogue, coloured(6), ("blue", "green", "red"))
    few = cluster_picture(catalogue, SENSOR, IDS[:6], one_hot(np.arange(6) % 3, 3))
    many = cluster_picture(catalogue, SENSOR, IDS[:6], one_hot(np.arange(6) % 3, 200))
    assert many.size == few.size
