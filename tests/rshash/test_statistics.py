import numpy as np
import pytest

from rshash.codes import pack, unpack
from rshash.errors import CodeError, RshashError
from rshash.statistics import agreement_with_features, code_statistics, flipped_bits


def test_code_statistics() -> None:
    values = np.random.default_rng(0).choice([-1, 1], (500, 72))
    values[:, 1] = values[:, 0]
    values[:, 2] = 1
    values[:100] = values[100:200]
    found = code_statistics(pack(values), 72)
    assert (found.codes, found.distinct) == (500, 400)
    np.testing.assert_allclose(found.bit_balance, (values > 0).mean(axis=0))
    assert found.max_abs_bit_correlation == pytest.approx(1)
    varying = np.delete(values, 2, axis=1)
    correlations = np.zeros((72, 72))
    rest = np.delete(np.arange(72), 2)
    correlations[np.ix_(rest, rest)] = np.corrcoef(varying.T)
    expected = np.abs(correlations[np.triu_indices(72, 1)]).mean()
    assert found.mean_abs_bit_correlation == pytest.approx(expected)
    with pytest.raises(CodeError, match="without codes"):
        code_statistics(np.zeros((0, 1), np.uint64), 64)


def test_flipped_bits() -> None:
    old = pack(np.random.default_rng(0).normal(size=(4, 72)))
    values = unpack(old, 72)
    values[1, :3] *= -1
    values[3, 70] *= -1
    assert flipped_bits(old, pack(values)).tolist() == [0, 3, 0, 1]
    with pytest.raises(CodeError, match="shapes"):
        flipped_bits(old, old[1:])


def test_agreement_with_features() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 128))
    assert agreement_with_features(pack(features), features, 39) == 1
    assert agreement_with_features(pack(features), features, 5) > 0.3
    # All codes equal: every other tile is as likely as the next.
    assert agreement_with_features(pack(np.ones((40, 8))), features, 5) == pytest.approx(5 / 39)
    with pytest.raises(RshashError, match="k = 40"):
        agreement_with_features(pack(features), features, 40)
