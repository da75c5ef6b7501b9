from pathlib import Path

import numpy as np
import pytest
import zarr
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles

from data_catalog import feature_cache
from data_catalog.catalogue import Catalogue
from data_catalog.encoding import encode_observations
from data_catalog.observations import current_observations, read_tiles


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Twelve tiles in two segments, of which the first has no pixels."""
    catalogue = Catalogue.create(tmp_path / "catalogue")
    some_tiles = tiles(12)
    for name, part in (("first", some_tiles[:7]), ("second", some_tiles[7:])):
        publish_segment(catalogue, name, index(part))
        folder = catalogue.root / f"tiles-{SENSOR}" / name
        array = zarr.open_group(folder / "pixels.zarr", mode="r+")["reflectance"]
        array.attrs["bands"] = list(BANDS)
        random = np.random.default_rng(len(part))
        brightness = random.integers(1, 4000, (len(part), len(BANDS), 1, 1), np.uint16)
        array[:] = brightness + random.integers(0, 500, array.shape, np.uint16)
        if name == "first":
            array[0] = 0
    return catalogue


@pytest.mark.parametrize("batch", [3, 100])
def test_codes_are_those_of_the_pixels_in_any_batches(
    catalogue: Catalogue, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "BATCH_TILES", batch)
    monkeypatch.setattr(feature_cache, "SAVE_TILES", 2 * batch)
    model = make_model(bits=128)
    observations = current_observations(catalogue, SENSOR)
    steps: list[int] = []
    rows = encode_observations(catalogue, model, observations, steps.append)
    assert sum(steps) == 12
    assert list(rows["tile_id"]) == sorted(tile.id for tile in tiles(12)[1:])
    pixels = read_tiles(catalogue, SENSOR, observations, model.bands)
    seen = ~np.isnan(pixels).all(axis=(1, 2, 3))
    expected = model.encode(pixels[seen])
    assert len(np.unique(expected, axis=0)) > 3
    np.testing.assert_array_equal(rows[["code_0", "code_1"]].to_numpy(np.uint64), expected)


def test_no_observations_give_no_codes(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, SENSOR)[:0]
    rows = encode_observations(catalogue, make_model(), observations)
    assert len(rows) == 0
    assert "code_0" in rows
