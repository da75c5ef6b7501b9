from concurrent.futures import ThreadPoolExecutor

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


def some_codes(
    seed: int, bits: int, n: int, distinct: int
) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    prototypes = pack(random.normal(size=(distinct, bits)))
    table = prototypes[random.integers(distinct, size=n)]
    queries = np.concatenate([table[:3], pack(random.normal(size=(3, bits)))])
    return random, table, queries


TABLES = {
    "seed": st.integers(0, 2**32 - 1),
    "bits": st.sampled_from([8, 64, 136, 264]),
    "n": st.integers(1, 60),
    "distinct": st.integers(1, 80),
}


@pytest.mark.parametrize("with_faiss", [True, False])
@pytest.mark.parametrize("prepared", [True, False])
@settings(deadline=None)
@given(**TABLES, k=st.integers(1, 70), filtered=st.booleans(), few=st.booleans())
def test_agrees_with_brute_force(
    with_faiss, prepared, seed, bits, n, distinct, k, filtered, few
) -> None:
    random, table, queries = some_codes(seed, bits, n, distinct)
    queries = queries[: 2 if few else None]
    allowed = random.random(n) < 0.5 if filtered else None
    with pytest.MonkeyPatch.context() as patch:
        if not with_faiss:
            patch.setattr(search, "_faiss", lambda: None)
        patch.setattr(search, "_CHUNK", 7)
        index = search.CodeIndex(table, bits)
        if prepared:
            index.prepare()
        distances, rows = index.nearest(queries, k, allowed)
    expected_distances, expected_rows = brute_force(table, queries, k, allowed)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)
    assert (distances.dtype, rows.dtype) == (np.int32, np.int64)


@settings(deadline=None)
@given(**TABLES, radius=st.integers(0, 264), filtered=st.booleans())
def test_a_radius_search_finds_all_rows_within(seed, bits, n, distinct, radius, filtered) -> None:
    random, table, queries = some_codes(seed, bits, n, distinct)
    allowed = random.random(n) < 0.5 if filtered else None
    distances, rows = search.CodeIndex(table, bits).within(queries[:1], radius, allowed)
    expected_distances, expected_rows = brute_force(table, queries[:1], n, allowed)
    within = expected_distances[0] <= radius
    np.testing.assert_array_equal(distances, expected_distances[0][within])
    np.testing.assert_array_equal(rows, expected_rows[0][within])


@settings(deadline=None)
@given(**TABLES, k=st.integers(1, 70), likes=st.integers(1, 3), filtered=st.booleans())
def test_examples_are_ranked_by_mean_distances(seed, bits, n, distinct, k, likes, filtered) -> None:
    random, table, queries = some_codes(seed, bits, n, distinct)
    allowed = random.random(n) < 0.5 if filtered else None
    like, unlike = queries[:likes], queries[likes : likes + seed % 3]
    distances, rows = search.CodeIndex(table, bits).nearest_to_examples(like, unlike, k, allowed)
    score = hamming_distance(like, table).mean(axis=0, dtype=float)
    if len(unlike):
        score -= hamming_distance(unlike, table).mean(axis=0, dtype=float) / 2
    may = np.arange(n) if allowed is None else np.flatnonzero(allowed)
    expected = may[np.argsort(np.round(score[may], 9), kind="stable")][:k]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(distances, score[expected])


@pytest.mark.parametrize("k", [1, 37, 5000])
@pytest.mark.parametrize("use_heap", [True, False])
def test_faiss_keeps_the_first_rows_of_equal_distances(k, use_heap) -> None:
    faiss = pytest.importorskip("faiss")
    # More rows than faiss takes at once, and few distances.
    table = np.random.default_rng(k).integers(0, 256, (70_000, 1), np.uint64) << np.uint64(56)
    flat = faiss.IndexBinaryFlat(64)
    flat.use_heap = use_heap
    flat.add(table.view(np.uint8))
    distances, rows = flat.search(table[:3].view(np.uint8), k)
    expected_distances, expected_rows = brute_force(table, table[:3], k, None)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)


def test_equal_codes_come_in_the_tables_order() -> None:
    index = search.CodeIndex(np.zeros((1000, 1), np.uint64), 64)
    for _ in range(2 * search.UNPREPARED_QUERIES):
        assert index.nearest(np.ones((1, 1), np.uint64), 3)[1].tolist() == [[0, 1, 2]]


def test_more_ties_than_wanted_keep_the_first_rows() -> None:
    table = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)
    distances, rows = search.CodeIndex(table[:, None], 64).nearest(np.zeros((1, 1), np.uint64), 5)
    assert distances.tolist() == [[1] * 5]
    assert rows.tolist() == [[0, 1, 2, 3, 4]]


def test_threads_may_share_an_index() -> None:
    _, table, _ = some_codes(0, 64, 3000, 200)
    index = search.CodeIndex(table, 64)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: index.nearest(table[i : i + 1], 9)[1][0], range(64)))
    np.testing.assert_array_equal(found, brute_force(table, table[:64], 9, None)[1])


def test_nothing_allowed_finds_nothing() -> None:
    index = search.CodeIndex(np.zeros((4, 1), np.uint64), 64)
    for queries in (np.zeros((2, 1), np.uint64), np.zeros((9, 1), np.uint64)):
        distances, rows = index.nearest(queries, 3, np.zeros(4, bool))
        assert distances.shape == rows.shape == (len(queries), 0)


def test_an_empty_table_finds_nothing() -> None:
    index = search.CodeIndex(np.zeros((0, 1), np.uint64), 64)
    query = np.zeros((1, 1), np.uint64)
    assert index.nearest(query, 3)[1].shape == (1, 0)
    assert index.within(query, 3)[1].shape == (0,)
    assert index.nearest_to_examples(query, query, 3)[1].shape == (0,)
    index.prepare()
    assert index.nearest(query, 3)[1].shape == (1, 0)


def test_bad_requests_are_refused() -> None:
    index = search.CodeIndex(np.zeros((4, 1), np.uint64), 64)
    query = np.zeros((1, 1), np.uint64)
    with pytest.raises(CodeError, match="at least 1"):
        index.nearest(query, 0)
    with pytest.raises(CodeError, match="filter"):
        index.nearest(query, 1, np.ones(3, bool))
    with pytest.raises(CodeError, match="uint64"):
        index.nearest(np.zeros((1, 2), np.uint64), 1)
    with pytest.raises(CodeError, match="radius"):
        index.within(query, -1)
    with pytest.raises(CodeError, match="at least one"):
        index.nearest_to_examples(query[:0], query, 3)
