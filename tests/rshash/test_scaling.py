import numpy as np
import pytest

from rshash.errors import FeatureError
from rshash.scaling import FeatureScaling

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
    assert FeatureScaling.fit(correlated(40), components=32).dimensions == 5
    assert FeatureScaling.fit(correlated(3), components=32).dimensions == 1


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
