import numpy as np
import pytest
import zarr
from published_world import BANDS, SENSOR, SIZE, index, publish_segment, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.observations import current_observations, read_tiles
from data_catalog.pixel_rows import PixelRows


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    publish_segment(catalogue, "first", index(tiles(6)))
    publish_segment(catalogue, "second", index(tiles(6)[2:4], day="2024-07-01"))
    random = np.random.default_rng(0)
    for path in (catalogue.root / f"tiles-{SENSOR}").glob("*/pixels.zarr"):
        array = zarr.open_group(path)["reflectance"]
        array[:] = random.integers(0, 3, array.shape, np.uint16)
    return catalogue


def test_rows_are_the_tiles_pixels_in_the_bands_asked_for(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, SENSOR).iloc[::-1]
    assert set(observations["segment_id"]) == {"first", "second"}
    bands = BANDS[::-1]
    rows = PixelRows(catalogue, SENSOR, observations, bands)
    side = SIZE // 10
    assert rows.tile_shape == (len(bands), side, side)
    assert rows.shape == (6, len(bands) * side * side)
    pixels = read_tiles(catalogue, SENSOR, observations, bands)
    assert np.isnan(pixels).any() and np.isfinite(pixels).any()
    np.testing.assert_array_equal(rows[1:4], pixels[1:4].reshape(3, -1))
    assert rows[6:9].shape == (0, rows.shape[1])
