import numpy as np
import pytest

from rshash.baselines import (
    fit_baselines,
    fit_itq,
    fit_lsh,
    fit_pca_sign,
    fit_sign_of_dimensions,
)
from rshash.codes import unpack
from rshash.errors import CodeError


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    random = np.random.default_rng(0)
    scale = np.linspace(3, 0.1, 24)
    return (random.normal(size=(300, 24)) * scale + 5).astype(np.float32)


def quantisation_error(hashed, features: np.ndarray, bits: int) -> float:
    projected = (features - hashed.mean) @ hashed.projection
    return float(np.square(projected - unpack(hashed.encode(features), bits)).mean())


def test_sign_of_dimensions_is_one_bit_each(features: np.ndarray) -> None:
    words = fit_sign_of_dimensions(features).encode(features)
    np.testing.assert_array_equal(unpack(words, 24) > 0, features >= features.mean(axis=0))


def test_pca_sign_takes_the_widest_directions(features: np.ndarray) -> None:
    hashed = fit_pca_sign(features, 8)
    np.testing.assert_allclose(hashed.projection.T @ hashed.projection, np.eye(8), atol=1e-5)
    spread = ((features - hashed.mean) @ hashed.projection).std(axis=0)
    assert (np.diff(spread) < 0).all()
    assert spread[0] > 2.5


def test_itq_rotates_towards_the_corners(features: np.ndarray) -> None:
    pca, itq = fit_pca_sign(features, 16), fit_itq(features, 16)
    np.testing.assert_allclose(itq.projection.T @ itq.projection, np.eye(16), atol=1e-4)
    assert quantisation_error(itq, features, 16) < quantisation_error(pca, features, 16)


def test_itq_is_no_worse_than_the_one_of_faiss(features: np.ndarray) -> None:
    faiss = pytest.importorskip("faiss")
    pca = fit_pca_sign(features, 16)
    projected = (features - pca.mean) @ pca.projection
    rotation = faiss.ITQMatrix(16)
    rotation.train(projected)
    rotated = rotation.apply(projected)
    theirs = np.square(rotated - np.where(rotated >= 0, 1, -1)).mean()
    assert quantisation_error(fit_itq(features, 16), features, 16) <= theirs


def test_lsh_follows_its_seed(features: np.ndarray) -> None:
    first, again, other = (fit_lsh(features, 32, seed).encode(features) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_more_components_than_dimensions_are_refused(features: np.ndarray) -> None:
    with pytest.raises(CodeError, match="32 principal components"):
        fit_itq(features, 32)
    with pytest.raises(CodeError, match="multiple of 8"):
        fit_lsh(features, 9)


@pytest.mark.parametrize(
    ("dimensions", "bits", "names"),
    [
        (24, 16, ["sign of all dimensions", "LSH", "PCA-sign", "ITQ"]),
        (24, 32, ["sign of all dimensions", "LSH"]),
        (23, 16, ["LSH", "PCA-sign", "ITQ"]),
    ],
)
def test_all_baselines_that_the_features_allow(
    features: np.ndarray, dimensions: int, bits: int, names: list[str]
) -> None:
    fitted = fit_baselines(features[:, :dimensions], bits, seed=1)
    assert list(fitted) == names
    for name, hashed in fitted.items():
        assert hashed.bits == (dimensions if name.startswith("sign") else bits)


def test_features_in_half_precision_get_the_same_codes(features: np.ndarray) -> None:
    half = features.astype(np.float16)
    for name, hashed in fit_baselines(half, 16, seed=1).items():
        single = fit_baselines(half.astype(np.float32), 16, seed=1)[name]
        differing = np.bitwise_count(hashed.encode(half) ^ single.encode(half.astype(np.float32)))
        assert differing.mean() < 0.02 * hashed.bits, name
