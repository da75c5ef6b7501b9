import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash import device_search
from rshash.codes import Words, hamming_distance
from rshash.device_search import DeviceCodes
from rshash.errors import CodeError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU"
))]  # fmt: skip


def brute_force(codes: Words, query: Words, k: int) -> tuple[np.ndarray, np.ndarray]:
    distances = hamming_distance(query, codes)[0]
    rows = np.argsort(distances, kind="stable")[:k]
    return distances[rows], rows


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 700),
    k=st.integers(1, 800),
    words=st.integers(1, 3),
    distinct=st.integers(1, 40),
)
def test_the_nearest_rows_are_found_in_their_order(
    device: str, seed: int, n: int, k: int, words: int, distinct: int
) -> None:
    random = np.random.default_rng(seed)
    pool = random.integers(0, 2**64, (distinct, words), np.uint64)
    codes = pool[random.integers(0, distinct, n)]
    query = random.integers(0, 2**64, (1, words), np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_search, "FIRST_CODES", 50)
        patch.setattr(device_search, "CHUNK_CODES", 200)
        found = DeviceCodes.of(codes, 64 * words, device).nearest(query, k)
    for ours, theirs in zip(found, brute_force(codes, query, k), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_bit_is_miscounted() -> None:
    single = np.uint64(1) << np.arange(64, dtype=np.uint64)
    codes = np.concatenate([[np.uint64(0), np.uint64(2**64 - 1)], single, ~single])[:, None]
    index = DeviceCodes.of(codes, 64, "cpu")
    for query in codes[:, None]:
        distances, rows = index.nearest(query, len(codes))
        expected = [int(query[0, 0] ^ code).bit_count() for code in codes[rows, 0]]
        assert distances.tolist() == expected


def test_what_does_not_fit_is_refused() -> None:
    index = DeviceCodes.of(np.zeros((3, 2), np.uint64), 128, "cpu")
    with pytest.raises(CodeError, match="but found 1, 0"):
        index.nearest(np.zeros((1, 2), np.uint64), 0)
    with pytest.raises(CodeError, match="but found 2, 1"):
        index.nearest(np.zeros((2, 2), np.uint64), 1)
    with pytest.raises(CodeError, match=r"int64 of shape \(n, 1\)"):
        DeviceCodes(torch.zeros((3, 2), dtype=torch.int64), 64)
