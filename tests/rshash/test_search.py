import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash import search
from rshash.codes import hamming_distance, pack
from rshash.errors import CodeError


def brute_force(
    table: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    distances = hamming_distance(queries, table).astype(np.int32)
    rows = np.arange(len(table)) if allowed is None else np.flatnonzero(allowed)
    order = np.argsort(distances[:, rows], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances[:, rows], order, axis=1), rows[order]


@pytest.mark.parametrize("with_faiss", [True, False])
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([8, 64, 136]),
    n=st.integers(1, 60),
    distinct=st.integers(1, 12),
    k=st.integers(1, 70),
    filtered=st.booleans(),
)
def test_agrees_with_brute_force(
    with_faiss: bool, seed: int, bits: int, n: int, distinct: int, k: int, filtered: bool
) -> None:
    random = np.random.default_rng(seed)
    prototypes = pack(random.normal(size=(distinct, bits)))
    table = prototypes[random.integers(distinct, size=n)]
    queries = np.concatenate([table[:3], pack(random.normal(size=(2, bits)))])
    allowed = random.random(n) < 0.5 if filtered else None
    with pytest.MonkeyPatch.context() as patch:
        if not with_faiss:
            patch.setattr(search, "faiss", None)
        index = search.CodeIndex(table, bits)
    distances, rows = index.nearest(queries, k, allowed)
    expected_distances, expected_rows = brute_force(table, queries, k, allowed)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)
    assert (distances.dtype, rows.dtype) == (np.int32, np.int64)


def test_equal_codes_come_in_the_tables_order() -> None:
    index = search.CodeIndex(np.zeros((1000, 1), np.uint64), 64)
    assert index.distinct == 1
    assert index.nearest(np.ones((1, 1), np.uint64), 3)[1].tolist() == [[0, 1, 2]]


def test_more_ties_than_wanted_keep_the_first_rows() -> None:
    table = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)
    distances, rows = search.CodeIndex(table[:, None], 64).nearest(np.zeros((1, 1), np.uint64), 5)
    assert distances.tolist() == [[1] * 5]
    assert rows.tolist() == [[0, 1, 2, 3, 4]]


def test_nothing_allowed_finds_nothing() -> None:
    index = search.CodeIndex(np.zeros((4, 1), np.uint64), 64)
    distances, rows = index.nearest(np.zeros((2, 1), np.uint64), 3, np.zeros(4, bool))
    assert distances.shape == rows.shape == (2, 0)


def test_an_empty_table_finds_nothing() -> None:
    index = search.CodeIndex(np.zeros((0, 1), np.uint64), 64)
    assert index.nearest(np.zeros((1, 1), np.uint64), 3)[1].shape == (1, 0)


def test_bad_requests_are_refused() -> None:
    index = search.CodeIndex(np.zeros((4, 1), np.uint64), 64)
    with pytest.raises(CodeError, match="at least 1"):
        index.nearest(np.zeros((1, 1), np.uint64), 0)
    with pytest.raises(CodeError, match="filter"):
        index.nearest(np.zeros((1, 1), np.uint64), 1, np.ones(3, bool))
    with pytest.raises(CodeError, match="uint64"):
        index.nearest(np.zeros((1, 2), np.uint64), 1)
