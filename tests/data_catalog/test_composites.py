"""Tiles of the best pass, and of the median of all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ingesting import MOMENT, S2, TILE, add_granule, add_half, index_of, plan, run
from tiny_source import SCL_CLEAR, SCL_CLOUD, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.errors import SourceError
from data_catalog.observations import current_observations, read_tiles
from data_catalog.reading import median

pytestmark = pytest.mark.usefixtures("impatient")

CENTRE = "{:f},{:f}".format(*TILE.centre)
SEEN = slice(60, 252), slice(60, 252)


def red_of(seed: int) -> np.ndarray:
    return (noise((312, 504), seed).astype(int) - 1000).clip(1)[SEEN] * 1e-4


def red_in(catalogue: Catalogue) -> np.ndarray:
    observed = current_observations(catalogue, S2)
    only = observed[observed["tile_id"] == TILE.id]
    return read_tiles(catalogue, S2, only, ["red"])[0, 0]


@given(
    arrays.arrays(
        np.uint16,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.one_of(st.just(0), st.integers(1, 65535)),
    )
)
def test_the_median_leaves_nodata_out(layers: np.ndarray) -> None:
    found = median(layers)
    for values, one in zip(layers.T, found, strict=True):
        seen = values[values > 0].astype(float)
        assert one == (np.floor(np.median(seen) + 0.5) if len(seen) else 0)


def test_a_median_is_of_the_passes_that_saw_a_pixel_clear(
    catalogue: Catalogue, source: TinySource
) -> None:
    for number in range(3):
        add_granule(source, f"clear-{number}", days=5 * number, seed=11 + 7 * number)
    add_granule(source, "cloudy", days=20, seed=40, clear=False)
    segment_id = run(catalogue, plan(catalogue, source, composite="median"))
    expected = np.median([red_of(11 + 7 * number) for number in range(3)], axis=0)
    np.testing.assert_allclose(red_in(catalogue), expected, atol=1e-6)
    row = index_of(catalogue, segment_id).iloc[0]
    assert sorted(row["source_scenes"]) == ["clear-0", "clear-1", "clear-2", "cloudy"]
    item = catalogue.item(f"tiles-{S2}", segment_id)
    assert item.properties["rshash:composite"] == "median"


def test_clouds_are_left_out_pixel_by_pixel(catalogue: Catalogue, source: TinySource) -> None:
    west, _, _, north = TILE.bounds
    for number, clear in enumerate((slice(0, 100), slice(60, 252))):
        scl = np.full((156, 252), SCL_CLOUD, np.uint8)
        scl[:, clear] = SCL_CLEAR
        bands = {"B04": (noise((312, 504), 20 + number), 10), "B11": (noise((156, 252), 5), 20)}
        moment = MOMENT.replace(day=MOMENT.day + number)
        corner = west - 600, north + 600
        source.sentinel_2(f"half-{number}", TILE.zone.epsg, *corner, bands, scl, moment)
    options = {"composite": "median", "area": CENTRE}
    segment_id = run(catalogue, plan(catalogue, source, minimum_clear=0.95, **options))
    first, second = red_of(20), red_of(21)
    # In pixels of the tile the first is clear up to column 140, the second from column 60 on.
    expected = np.where(np.arange(192) < 60, first, second)
    both = (np.arange(192) >= 60) & (np.arange(192) < 140)
    mean = (np.rint(first * 1e4) + np.rint(second * 1e4) + 1) // 2 * 1e-4
    np.testing.assert_allclose(red_in(catalogue), np.where(both, mean, expected), atol=1e-6)
    assert index_of(catalogue, segment_id)["clear_fraction"].tolist() == [1.0]


def test_a_new_scene_makes_a_median_anew(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first", seed=11)
    run(catalogue, plan(catalogue, source, composite="median"))
    assert plan(catalogue, source, composite="median").is_empty
    add_granule(source, "second", days=1, seed=12)
    add_granule(source, "third", days=2, seed=13)
    planned = plan(catalogue, source, composite="median")
    assert sorted(planned.scenes) == ["first", "second", "third"]
    run(catalogue, planned)
    expected = np.median([red_of(seed) for seed in (11, 12, 13)], axis=0)
    np.testing.assert_allclose(red_in(catalogue), expected, atol=1e-6)


def test_what_a_median_has_read_the_best_has_not(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    run(catalogue, plan(catalogue, source, composite="median"))
    assert not plan(catalogue, source, composite="best").is_empty


def test_a_pass_that_cannot_be_read_is_left_out_of_the_median(
    catalogue: Catalogue, source: TinySource
) -> None:
    for number in range(3):
        add_granule(source, f"scene-{number}", days=number, seed=11 + number)
    source.write()
    (source.folder / "sentinel-2-l2a/scene-1/B11.tif").write_bytes(b"no image")
    planned = plan(catalogue, source, composite="median")
    (source.folder / "sentinel-2-l2a/scene-1/B11.tif").write_bytes(b"no image")
    segment_id = run(catalogue, planned)
    mean = sum(np.rint(red_of(seed) * 1e4) for seed in (11, 13))
    np.testing.assert_allclose(red_in(catalogue), (mean + 1) // 2 * 1e-4, atol=1e-6)
    row = index_of(catalogue, segment_id).iloc[0]
    assert list(row["considered_scenes"]) == ["scene-0", "scene-2"]


def test_a_median_counts_halves_of_one_pass_once(catalogue: Catalogue, source: TinySource) -> None:
    add_half(source, "west", east=False)
    add_half(source, "east", east=True, minutes=1)
    segment_id = run(catalogue, plan(catalogue, source, area=CENTRE, composite="median"))
    row = index_of(catalogue, segment_id).iloc[0]
    assert (row["state"], row["clear_fraction"]) == ("valid", 1.0)
    assert sorted(row["source_scenes"]) == ["east", "west"]
    assert (red_in(catalogue) > 0).all()


def test_an_empty_period_has_no_median(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    with pytest.raises(SourceError, match="has no Sentinel-2"):
        plan(catalogue, source, area="100.0,10.0", composite="median")
