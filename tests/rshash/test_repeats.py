import numpy as np
import pytest

from rshash import repeats
from rshash.codes import pack
from rshash.repeats import find_repeats


def repeating(words: int, n: int = 5000, distinct: int = 300) -> np.ndarray:
    random = np.random.default_rng(words)
    return pack(random.normal(size=(distinct, 64 * words)))[random.integers(distinct, size=n)]


@pytest.mark.parametrize("words", [1, 2, 3])
def test_distinct_codes_come_in_the_order_of_their_first_rows(words: int) -> None:
    codes = repeating(words)
    found = find_repeats(codes)
    assert found is not None
    expected, first, counts = np.unique(codes, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    np.testing.assert_array_equal(found.distinct, expected[order])
    np.testing.assert_array_equal(found.sizes, counts[order])
    for code, start, size in zip(found.distinct, found.starts, found.sizes, strict=True):
        rows = np.flatnonzero((codes == code).all(axis=1))
        np.testing.assert_array_equal(found.rows[start : start + size], rows)


def test_codes_of_one_hash_are_told_apart(monkeypatch) -> None:
    codes = repeating(2)
    expected = find_repeats(codes)
    monkeypatch.setattr(repeats, "_hashes", lambda codes: codes[:, 0] & np.uint64(7))
    found = find_repeats(codes)
    assert found is not None and expected is not None
    np.testing.assert_array_equal(found.distinct, expected.distinct)
    np.testing.assert_array_equal(found.sizes, expected.sizes)
    np.testing.assert_array_equal(found.rows[found.starts], expected.rows[expected.starts])


def test_codes_that_hardly_repeat_are_left_as_they_are() -> None:
    codes = pack(np.random.default_rng(0).normal(size=(3000, 64)))
    assert find_repeats(codes) is None
    # A fifth of the rows share a code, but searching the others takes as long.
    codes[::5] = codes[0]
    assert find_repeats(codes) is None
    assert find_repeats(codes[:1]) is None
    assert find_repeats(codes[:0]) is None


def test_more_queries_than_fit_one_sort_are_expanded_in_parts(monkeypatch) -> None:
    found = find_repeats(repeating(1))
    assert found is not None
    distances = np.tile(np.arange(4, dtype=np.int32), (9, 1))
    codes = np.arange(36).reshape(9, 4)
    expected = found.expand(distances, codes, 50)
    monkeypatch.setattr(repeats, "_SORT_KEYS", 1)
    for part, whole in zip(found.expand(distances, codes, 50), expected, strict=True):
        np.testing.assert_array_equal(part, whole)
