import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_catalog import feature_cache
from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.feature_cache import (
    compute_features,
    feature_batches,
    joined_features,
    observation_features,
)
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations
from data_catalog.planning import plan_ingest

S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"
WORLD = World(tiles=3)


class MeanBrightness:
    """An extractor that counts what it is asked for; one tile has no features."""

    id, bands, dimensions, tiles_at_once = "mean", ("red", "green"), 2, 1
    precision = "float32"

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


def cache_files(catalogue: Catalogue, kind: str = "*", extractor: str = "*") -> list[Path]:
    return sorted((catalogue.root / ".cache" / "features").glob(f"{extractor}/*/*.{kind}.npy"))


def test_the_cache_can_be_deleted_and_follows_the_extractor(catalogue: Catalogue) -> None:
    observations = current_observations(catalogue, S2)
    before = observation_features(catalogue, S2, observations, MeanBrightness())
    other = MeanBrightness()
    other.id = "another"
    observation_features(catalogue, S2, observations, other)
    assert other.asked == len(observations)
    shutil.rmtree(catalogue.root / ".cache")
    again = MeanBrightness()
    np.testing.assert_array_equal(observation_features(catalogue, S2, observations, again), before)
    assert again.asked == len(observations)


def test_features_of_another_precision_are_not_taken_for_those_asked_for(
    catalogue: Catalogue,
) -> None:
    observations = current_observations(catalogue, S2)
    observation_features(catalogue, S2, observations, MeanBrightness())
    rounded = MeanBrightness()
    rounded.precision = "bfloat16"
    observation_features(catalogue, S2, observations, rounded)
    assert rounded.asked == len(observations)
    assert cache_files(catalogue, extractor="mean-bf16")
    joined = [
        joined_features(catalogue, {S2: extractor}, 1920)[1][S2].path
        for extractor in (MeanBrightness(), rounded)
    ]
    assert joined[0] != joined[1]


@pytest.mark.parametrize("kind", ["rows", "features"])
def test_a_cache_that_a_crash_cut_off_is_computed_again(catalogue: Catalogue, kind: str) -> None:
    observations = current_observations(catalogue, S2)
    before = observation_features(catalogue, S2, observations, MeanBrightness())
    assert cache_files(catalogue, kind)
    for path in cache_files(catalogue, kind):
        path.write_bytes(path.read_bytes()[:-3])
    feature_cache._segment.cache_clear()  # as the next process begins
    again = MeanBrightness()
    np.testing.assert_array_equal(observation_features(catalogue, S2, observations, again), before)
    assert again.asked == len(observations)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "BATCH_TILES", 2)
    monkeypatch.setattr(feature_cache, "SAVE_TILES", 4)


@pytest.mark.usefixtures("small_steps")
def test_a_run_that_is_killed_loses_little_and_nothing_is_written_twice(
    catalogue: Catalogue,
) -> None:
    class Watchful(MeanBrightness):
        """Looks at what a kill at this moment would leave on disk."""

        id = "watchful"

        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[Path, bytes] = {}

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            files = {path: path.read_bytes() for path in cache_files(catalogue, "*", self.id)}
            assert self.kept.items() <= files.items()
            self.kept = files
            rows = [np.load(path) for path in files if path.name.endswith(".rows.npy")]
            assert self.asked - sum(map(len, rows)) < 4
            return super().__call__(tiles)

    observations = current_observations(catalogue, S2)
    extractor = Watchful()
    compute_features(catalogue, S2, observations, extractor)
    assert extractor.asked == len(observations) > 8
    assert len(cache_files(catalogue, "rows", "watchful")) == -(-len(observations) // 4)
    batches = list(feature_batches(catalogue, S2, observations, extractor))
    assert [len(features) for _, features in batches][:2] == [4, 4]
    whole = observation_features(catalogue, S2, observations, MeanBrightness())
    np.testing.assert_array_equal(np.concatenate([found for _, found in batches]), whole)


@pytest.mark.usefixtures("small_steps")
def test_what_an_error_interrupts_goes_on_where_it_ended(catalogue: Catalogue) -> None:
    class Failing(MeanBrightness):
        id = "failing"

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            if self.asked == 6:
                raise MemoryError
            return super().__call__(tiles)

    observations = current_observations(catalogue, S2)
    with pytest.raises(MemoryError):
        compute_features(catalogue, S2, observations, Failing())
    rest = MeanBrightness()
    rest.id = "failing"
    compute_features(catalogue, S2, observations, rest)
    assert rest.asked == len(observations) - 6


@pytest.mark.usefixtures("small_steps")
def test_runs_side_by_side_leave_one_sound_cache(catalogue: Catalogue) -> None:
    class Meeting(MeanBrightness):
        """Waits at every batch until the other run is there too."""

        id = "meeting"
        barrier = threading.Barrier(2, timeout=60)

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            self.barrier.wait()
            return super().__call__(tiles)

    observations = current_observations(catalogue, S2)
    runs = [Meeting(), Meeting()]
    with ThreadPoolExecutor(2) as pool:
        found = list(
            pool.map(lambda run: observation_features(catalogue, S2, observations, run), runs)
        )
    assert [run.asked for run in runs] == [len(observations)] * 2
    np.testing.assert_array_equal(*found)
    again = MeanBrightness()
    again.id = "meeting"
    np.testing.assert_array_equal(
        observation_features(catalogue, S2, observations, again), found[0]
    )
    assert again.asked == 0


ROWS, PIECE = 480, 8


def cached_batch(task: tuple[Path, int, int]) -> NDArray[np.float32]:
    """Encodes rows of a segment as a task does that knows nothing of others; returns features."""
    root, start, seed = task
    random = np.random.default_rng(seed)
    segment = feature_cache._segment(root / "segment", 2)
    rows = np.arange(start, start + 2 * PIECE)[::-1]
    segment.refresh()
    lacking = rows[~segment.holds(rows)]
    for piece in np.split(lacking, random.integers(0, len(lacking) + 1, 2)):
        if len(piece):
            segment.write(piece, features_of(piece))
    assert segment.holds(rows).all()
    assert (segment.complete(rows) == (rows % 5 > 0)).all()
    return segment.take(rows)[::-1]


def features_of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
    features = np.stack([rows, -rows], axis=1).astype(np.float32)
    features[rows % 5 == 0, 1] = np.nan
    return features


def spawned(processes: int) -> Executor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, spawned])
def test_batches_that_overlap_get_what_was_computed_by_whatever_task(
    pool: Callable[[int], Executor], tmp_path: Path
) -> None:
    starts = np.random.default_rng(0).permutation(np.arange(0, ROWS - PIECE, PIECE)).tolist()
    tasks = [(tmp_path, start, start) for start in starts]
    with pool(3) as executor:
        found = list(executor.map(cached_batch, tasks))
    for start, features in zip(starts, found, strict=True):
        np.testing.assert_array_equal(features, features_of(np.arange(start, start + 2 * PIECE)))
    folder, rows = tmp_path / "segment", np.arange(-5, ROWS + 5)
    for segment in (feature_cache._segment(folder, 2), feature_cache._Segment(folder, 2)):
        segment.refresh()
        np.testing.assert_array_equal(segment.holds(rows), (rows >= 0) & (rows < ROWS))
        np.testing.assert_array_equal(segment.take(rows[5:-5]), features_of(rows[5:-5]))


def test_a_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, ROWS, PIECE):
        feature_cache._Segment(tmp_path / "segment", 2).write(
            np.arange(start, start + PIECE), features_of(np.arange(start, start + PIECE))
        )
    read = []
    load = np.load

    def counted(path: Path, **options: Any) -> Any:
        read.append(path.name)
        return load(path, **options)

    monkeypatch.setattr(np, "load", counted)
    for start in range(0, ROWS - PIECE, PIECE):
        cached_batch((tmp_path, start, 0))
    rows = [name for name in read if name.endswith(".rows.npy")]
    assert len(rows) == len(set(rows)) == ROWS // PIECE


@pytest.mark.usefixtures("small_steps")
def test_tiles_are_read_while_others_are_computed(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Semaphore(0)
    read_tiles = feature_cache.read_tiles

    def watched(*args: Any) -> NDArray[np.float32]:
        reading.release()
        return read_tiles(*args)

    class Patient(MeanBrightness):
        """Computes nothing before the next batch is being read."""

        id = "patient"

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            for _ in range(1 if self.asked else 2):
                last = self.asked + len(tiles) == len(observations)
                assert last or reading.acquire(timeout=60)
            return super().__call__(tiles)

    monkeypatch.setattr(feature_cache, "read_tiles", watched)
    observations = current_observations(catalogue, S2)
    extractor = Patient()
    compute_features(catalogue, S2, observations, extractor)
    assert extractor.asked == len(observations)


def test_sensors_are_joined_on_the_tile_and_what_lacks_is_nan(catalogue: Catalogue) -> None:
    tile_ids, features, _ = joined_features(
        catalogue, {S2: MeanBrightness(), LANDSAT: MeanBrightness()}, WORLD.tile_size
    )
    assert list(features) == [S2, LANDSAT]
    primary, secondary = (rows[:] for rows in features.values())
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

    tile_ids, features, _ = joined_features(catalogue, {S2: Blind()}, WORLD.tile_size)
    observations = current_observations(catalogue, S2)
    assert tile_ids == list(observations["tile_id"])[1:]
    whole = observation_features(catalogue, S2, observations, MeanBrightness())
    np.testing.assert_array_equal(features[S2][:], whole[1:])


@pytest.mark.usefixtures("small_steps")
def test_joined_features_are_reused_and_removed_after_a_week(catalogue: Catalogue) -> None:
    extractors = {S2: MeanBrightness(), LANDSAT: MeanBrightness()}
    ids, first, _ = joined_features(catalogue, extractors, WORLD.tile_size)
    written = {sensor: rows.path.stat().st_ino for sensor, rows in first.items()}
    same_ids, again, _ = joined_features(catalogue, extractors, WORLD.tile_size)
    assert same_ids == ids
    assert {sensor: rows.path.stat().st_ino for sensor, rows in again.items()} == written
    assert first[S2].path != first[LANDSAT].path
    days = feature_cache.KEEP_JOINED_DAYS
    for sensor, age in ((S2, days + 1), (LANDSAT, days - 1)):
        os.utime(first[sensor].path, (time.time() - age * 86400,) * 2)
    other = MeanBrightness()
    other.id = "other"
    joined_features(catalogue, {S2: other}, WORLD.tile_size)
    assert not first[S2].path.exists()
    assert first[LANDSAT].path.exists()
    assert len(first[S2][:]) == len(ids), "what is open stays readable"


def test_a_second_sensor_that_saw_nothing_is_left_out(catalogue: Catalogue) -> None:
    class Blind(MeanBrightness):
        id = "blind-to-all"

        def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().__call__(tiles) * np.float32(np.nan)

    seeing, blind = MeanBrightness(), Blind()
    for extractors in ({S2: seeing, "sentinel-1-rtc": blind}, {S2: seeing, LANDSAT: blind}):
        tile_ids, features, _ = joined_features(catalogue, extractors, WORLD.tile_size)
        assert list(features) == [S2]
        assert len(features[S2]) == len(tile_ids) > 0
    tile_ids, features, _ = joined_features(
        catalogue, {S2: blind, LANDSAT: seeing}, WORLD.tile_size
    )
    assert (tile_ids, features[S2].shape) == ([], (0, 2))
