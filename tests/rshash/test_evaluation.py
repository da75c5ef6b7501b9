from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash import evaluation
from rshash.codes import hamming_distance, pack, unpack
from rshash.errors import CodeError, RshashError
from rshash.evaluation import (
    agreement_with_features,
    code_statistics,
    flipped_bits,
    mean_average_precision,
    mean_average_precision_of_features,
)


def average_precision(relevant: np.ndarray, at: int | None) -> float:
    limit = len(relevant) if at is None else min(at, len(relevant))
    hits = np.cumsum(relevant)[:limit]
    precision = hits / np.arange(1, limit + 1)
    return float((precision * relevant[:limit]).sum() / min(limit, relevant.sum()))


def over_all_orders(distances: np.ndarray, relevant: np.ndarray, at: int | None) -> float:
    orders = [
        order
        for order in permutations(range(len(distances)))
        if (np.diff(distances[list(order)].astype(int)) >= 0).all()
    ]
    return float(np.mean([average_precision(relevant[list(order)], at) for order in orders]))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 6),
    at=st.one_of(st.none(), st.integers(1, 8)),
)
def test_ties_count_as_the_mean_over_all_orders(seed: int, n: int, at: int | None) -> None:
    random = np.random.default_rng(seed)
    ones = random.integers(0, 3, n)
    database = pack(np.where(np.arange(8) < ones[:, None], 1, -1))
    query = pack(-np.ones((1, 8)))
    labels = random.integers(0, 2, n)
    labels[random.integers(n)] = 1
    expected = over_all_orders(hamming_distance(query, database)[0], labels == 1, at)
    found = mean_average_precision(query, np.array([1]), database, labels, at)
    assert found == pytest.approx(expected)
    # The same groups of ties, as cosines of vectors at growing angles.
    angles = np.stack([np.cos(ones * 0.5), np.sin(ones * 0.5)], axis=1)
    of_features = mean_average_precision_of_features(
        np.array([[1.0, 0.0]]), np.array([1]), angles, labels, at
    )
    assert of_features == pytest.approx(expected)


@pytest.mark.parametrize("at", [None, 20])
def test_the_order_of_the_database_does_not_matter(at: int | None) -> None:
    random = np.random.default_rng(0)
    database = pack(random.normal(size=(12, 16)))[random.integers(12, size=400)]
    labels = np.sort(random.integers(5, size=400))
    queries, query_labels = database[::40], labels[::40]
    shuffled = random.permutation(400)
    figures = [
        mean_average_precision(queries, query_labels, database[order], labels[order], at)
        for order in (np.arange(400), shuffled)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)


def test_blocks_and_several_labels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes = pack(random.normal(size=(50, 72)))
    labels = random.integers(4, size=50)
    one_hot = labels[:, None] == np.arange(4)
    arguments = (codes[:9], labels[:9], codes[9:], labels[9:])
    expected = mean_average_precision(*arguments)
    assert mean_average_precision(codes[:9], one_hot[:9], codes[9:], one_hot[9:]) == expected
    monkeypatch.setattr(evaluation, "_BLOCK_ELEMENTS", 20)
    assert mean_average_precision(*arguments) == pytest.approx(expected)


def test_one_shared_label_is_enough() -> None:
    codes = pack(np.array([[1] * 8, [1] * 8, [-1] * 8]))
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)
    assert mean_average_precision(codes[:1], labels[:1], codes[1:], labels[1:]) == 1.0


def test_queries_without_anything_relevant_take_no_part() -> None:
    codes = pack(np.array([[1] * 8, [-1] * 8]))
    found = mean_average_precision(codes, np.array([0, 7]), codes, np.array([0, 0]))
    assert found == 1.0
    with pytest.raises(RshashError, match="No query shares a label"):
        mean_average_precision(codes, np.array([7, 7]), codes, np.array([0, 0]))
    with pytest.raises(RshashError, match="needs its label"):
        mean_average_precision(codes, np.array([7]), codes, np.array([0, 0]))


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
