import numpy as np
import pytest
import torch

from rshash.errors import FeatureError, TrainingError
from rshash.scaling import FeatureScaling, check_sources

rng = np.random.default_rng(3)


def correlated(rows: int = 400) -> np.ndarray:
    return (rng.normal(size=(rows, 12)) @ rng.normal(size=(12, 20)) + 5.0).astype(np.float32)


def test_whitened_features_are_uncorrelated_before_they_get_their_length() -> None:
    features = correlated()
    scaling = FeatureScaling.fit(features, components=6)
    whitened = (features - scaling.mean) @ scaling.projection
    np.testing.assert_allclose(whitened.T @ whitened / len(features), np.eye(6), atol=1e-3)
    scaled = scaling.apply(features)
    assert scaled.shape == (400, scaling.dimensions) == (400, 6)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), np.sqrt(6), rtol=1e-5)


def test_few_rows_get_few_components() -> None:
    assert FeatureScaling.fit(correlated(40), components=16).dimensions == 5
    assert FeatureScaling.fit(correlated(3), components=16).dimensions == 1


@pytest.mark.parametrize("components", [0, 21])
def test_components_that_are_not_there_are_refused(components: int) -> None:
    with pytest.raises(FeatureError, match=f"1 to 20 .* but {components} are asked for"):
        FeatureScaling.fit(correlated(), components)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_is_not_whitened(dtype: type) -> None:
    features = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 20)) + 5.0
    features[:, 3] = 100 + rng.choice([0, 2e-7], 4000)
    features = features.astype(np.float32).astype(dtype)
    scaling = FeatureScaling.fit(features, components=12)
    assert scaling.dimensions == 5
    whitened = (features.astype(np.float64) - scaling.mean) @ scaling.projection
    np.testing.assert_allclose(whitened.T @ whitened / 4000, np.eye(5), atol=1e-3)


def test_small_differences_are_whitened() -> None:
    features = rng.normal(size=(400, 6)) * [1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5] + 1
    scaling = FeatureScaling.fit(features.astype(np.float32), components=6)
    assert scaling.dimensions == 6


def test_whitening_ignores_rows_of_nan_and_keeps_them() -> None:
    features = correlated()
    holed = np.concatenate([features, np.full((3, 20), np.nan, np.float32)])
    scaling = FeatureScaling.fit(holed, components=6)
    np.testing.assert_array_equal(
        scaling.projection, FeatureScaling.fit(features, components=6).projection
    )
    assert np.isnan(scaling.apply(holed)[400:]).all()


def test_features_of_another_extractor_are_refused() -> None:
    scaling = FeatureScaling.fit(correlated(), components=6)
    with pytest.raises(FeatureError, match="another extractor"):
        scaling.apply(correlated()[:, :7])


@pytest.mark.parametrize("components", [None, 6])
def test_rows_read_block_by_block_give_the_statistics_of_the_whole(components: int | None) -> None:
    # A drift between the blocks, and blocks without any tile.
    features = correlated(30_000) + np.linspace(0, 50, 30_000, dtype=np.float32)[:, None]
    features[:9000] = np.nan
    features[20_000:20_100] = np.nan
    scaling = FeatureScaling.fit(features, components)
    present = features[~np.isnan(features).any(axis=1)].astype(np.float64)
    np.testing.assert_allclose(scaling.mean, present.mean(axis=0), rtol=1e-6)
    if components:
        whitened = (present - scaling.mean) @ scaling.projection
        np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(6), atol=1e-3)


def test_half_precision_is_summed_in_double() -> None:
    features = np.full((20_000, 2), 100, np.float16)
    features[::2, 0] = 101
    np.testing.assert_array_equal(FeatureScaling.fit(features).mean, [100.5, 100])


def test_infinite_features_are_refused_naming_the_first_row() -> None:
    features = correlated()
    features[17, 3], features[200, 0] = np.inf, -np.inf
    with pytest.raises(FeatureError, match=r"2 of 400 tiles have infinite features.*row 17"):
        FeatureScaling.fit(features)


@pytest.mark.parametrize("factor", [1e19, 1e200, 1e-25])
def test_features_whose_squares_float32_cannot_hold_are_refused(factor: float) -> None:
    with pytest.raises(FeatureError, match="multiply them all by one number"):
        FeatureScaling.fit(correlated().astype(float) * factor)


def test_rows_that_are_partly_nan_are_refused_naming_the_first() -> None:
    features = correlated()
    features[3], features[17, 3], features[200, 0] = np.nan, np.nan, np.nan
    with pytest.raises(FeatureError, match=r"2 of 400 tiles have NaN among .*row 17.*again"):
        FeatureScaling.fit(features)


def test_features_that_are_all_the_same_are_refused() -> None:
    features = np.tile(correlated(1), (9000, 1))
    features[5] = np.nan
    with pytest.raises(FeatureError, match="All 8999 tiles have the same features"):
        FeatureScaling.fit(features)
    features[6, 2] += 0.5
    assert np.isfinite(FeatureScaling.fit(features, components=4).apply(features[6:])).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("components", [None, 4])
def test_features_that_differ_by_rounding_alone_are_refused(
    dtype: type, components: int | None
) -> None:
    steps = rng.integers(-1, 2, (200, 8)) * np.finfo(dtype).eps
    features = (np.linspace(-3, 40, 8) * (1 + steps)).astype(dtype)
    assert len(np.unique(features, axis=0)) > 1
    with pytest.raises(FeatureError, match="All 200 tiles have the same features"):
        FeatureScaling.fit(features, components)
    features[:, 5] = rng.normal(1, 0.1, 200)
    assert np.isfinite(FeatureScaling.fit(features, components).apply(features)).all()


def test_a_source_that_saw_one_tile_is_no_error() -> None:
    features = np.full((5, 3), np.nan, np.float32)
    features[2] = 1
    np.testing.assert_array_equal(FeatureScaling.fit(features).apply(features)[2], 0)


def test_nothing_to_scale_by_is_refused() -> None:
    with pytest.raises(FeatureError, match="None of 4 tiles has features"):
        FeatureScaling.fit(np.full((4, 2), np.nan, np.float32))
    with pytest.raises(FeatureError, match=r"found shape \(4,\)"):
        FeatureScaling.fit(np.zeros(4, np.float32))


def test_sources_that_cannot_be_trained_on_are_refused() -> None:
    primary, secondary = correlated(), correlated()
    secondary[7] = np.nan
    check_sources([primary, secondary])
    with pytest.raises(TrainingError, match="At least one source"):
        check_sources([])
    with pytest.raises(TrainingError, match=r"same tiles.* s2 has 400, landsat has 399"):
        check_sources([primary, secondary[1:]], ["s2", "landsat"])
    with pytest.raises(TrainingError, match="source 1 has 399, source 2 has 400"):
        check_sources([primary[1:], secondary])
    lacking = "1 of 400 tiles lack features"
    with pytest.raises(
        TrainingError, match=f"{lacking} of the primary source, landsat, the first in row 7:"
    ):
        check_sources([secondary, primary], ["landsat", "s2"])
    with pytest.raises(TrainingError, match=f"{lacking} of the primary source, the first in row 7"):
        check_sources([secondary, primary])
    with pytest.raises(TrainingError, match=f"{lacking}, the first in row 7:"):
        check_sources([secondary])


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ([[1.0, 2.0]], "list"),
        (torch.ones(3, 20), "Tensor"),
        (None, "NoneType"),
        (np.full((3, 20), "a"), "ndarray of <U1"),
        (np.full((3, 20), None), "ndarray of object"),
    ],
)
def test_features_that_are_no_array_of_numbers_are_refused(found: object, name: str) -> None:
    scaling = FeatureScaling.fit(correlated())
    for use in (lambda: check_sources([correlated(), found]), lambda: scaling.apply(found)):
        with pytest.raises(FeatureError, match=f"FeatureFile of numbers, but found a {name}"):
            use()


def test_sources_come_in_a_list() -> None:
    with pytest.raises(TrainingError, match=r"A list with each source's .* but found a ndarray"):
        check_sources(correlated())
