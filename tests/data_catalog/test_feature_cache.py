from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.feature_cache import joined_features, observation_features
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations
from data_catalog.planning import plan_ingest

S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"
WORLD = World(tiles=3)


class MeanBrightness:
    """An extractor that counts what it is asked for; one tile has no features."""

    id, bands, dimensions = "mean", ("red", "green"), 2

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked += len(tiles)
        return np.nanmean(tiles, axis=(2, 3), dtype=np.float64).astype(np.float32)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("features")
    source = build_world(folder / "world", 1, WORLD)
    catalogue = Catalogue.create(folder / "catalogue")
    for sensor in (S2, LANDSAT):
        plan = plan_ingest(
            catalogue, str(source), sensor, world_area(WORLD), "2024", minimum_clear=0.5
        )
        for block_id in plan.block_ids:
            ingest_block(plan.save(catalogue), block_id)
        publish_segment(catalogue, plan)
    return catalogue


def test_nothing_is_computed_twice(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, S2)
    extractor, steps = MeanBrightness(), []
    first = observation_features(catalogue, S2, observations[::2], extractor, steps.append)
    assert extractor.asked == sum(steps) == len(first) == len(observations[::2])
    whole = observation_features(catalogue, S2, observations, extractor)
    assert extractor.asked == len(observations)
    np.testing.assert_array_equal(whole[::2], first)
    backwards = observation_features(catalogue, S2, observations[::-1], MeanBrightness())
    np.testing.assert_array_equal(backwards, whole[::-1])


def test_the_cache_can_be_deleted_and_follows_the_extractor(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, S2)
    before = observation_features(catalogue, S2, observations, MeanBrightness())
    other = MeanBrightness()
    other.id = "another"
    observation_features(catalogue, S2, observations, other)
    assert other.asked == len(observations)
    for path in Path(catalogue.root / ".cache").rglob("*.npz"):
        path.unlink()
    again = MeanBrightness()
    np.testing.assert_array_equal(observation_features(catalogue, S2, observations, again), before)
    assert again.asked == len(observations)


def test_a_cache_that_a_crash_cut_off_is_computed_again(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, S2)
    before = observation_features(catalogue, S2, observations, MeanBrightness())
    for path in Path(catalogue.root / ".cache").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    again = MeanBrightness()
    np.testing.assert_array_equal(observation_features(catalogue, S2, observations, again), before)
    assert again.asked == len(observations)


def test_sensors_are_joined_on_the_tile_and_what_lacks_is_nan(catalogue: Catalogue) -> None:
    tile_ids, features = joined_features(
        catalogue, {S2: MeanBrightness(), LANDSAT: MeanBrightness()}, WORLD.tile_size
    )
    assert list(features) == [S2, LANDSAT]
    primary, secondary = features.values()
    seen = {s: set(current_observations(catalogue, s)["tile_id"]) for s in (S2, LANDSAT)}
    assert set(tile_ids) == seen[S2]
    assert not np.isnan(primary).any()
    lacking = [tile_id not in seen[LANDSAT] for tile_id in tile_ids]
    np.testing.assert_array_equal(np.isnan(secondary).any(1), lacking)


def test_a_tile_without_features_of_the_primary_sensor_is_left_out(catalogue: Catalogue) -> None:
    class Blind(MeanBrightness):
        id = "blind"

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            features = super().__call__(tiles)
            features[0] = np.nan
            return features

    tile_ids, features = joined_features(catalogue, {S2: Blind()}, WORLD.tile_size)
    observations = current_observations(catalogue, S2)
    assert tile_ids == list(observations["tile_id"])[1:]
    assert len(features[S2]) == len(tile_ids)


def test_a_second_sensor_that_saw_nothing_is_left_out(catalogue: Catalogue) -> None:
    class Blind(MeanBrightness):
        id = "blind-to-all"

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().__call__(tiles) * np.float32(np.nan)

    seeing, blind = MeanBrightness(), Blind()
    for extractors in ({S2: seeing, "sentinel-1-rtc": blind}, {S2: seeing, LANDSAT: blind}):
        tile_ids, features = joined_features(catalogue, extractors, WORLD.tile_size)
        assert list(features) == [S2]
        assert len(features[S2]) == len(tile_ids) > 0
    tile_ids, features = joined_features(catalogue, {S2: blind, LANDSAT: seeing}, WORLD.tile_size)
    assert (tile_ids, features[S2].shape) == ([], (0, 2))
