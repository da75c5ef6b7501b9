import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rshash import codes
from rshash.errors import CodeError

BITS = st.sampled_from([8, 16, 24, 48, 64, 72, 128, 1024])


@st.composite
def signs(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(0, 6)), draw(BITS))
    return draw(hnp.arrays(np.int8, shape, elements=st.sampled_from([-1, 1]), fill=st.just(1)))


@given(signs())
def test_unpack_inverts_pack(values: np.ndarray) -> None:
    np.testing.assert_array_equal(codes.unpack(codes.pack(values), values.shape[1]), values)


def test_bit_zero_is_the_most_significant_bit_of_word_zero() -> None:
    values = -np.ones((3, 72))
    values[0, 0] = 1
    values[1, 63] = 1
    values[2, 64] = 1
    assert codes.pack(values).tolist() == [[1 << 63, 0], [1, 0], [0, 1 << 63]]


def test_unused_low_bits_are_zero() -> None:
    assert codes.pack(np.ones((1, 8))).tolist() == [[0xFF << 56]]


def test_zero_counts_as_positive() -> None:
    values = np.array([[0.0, -0.0, -1e-30, 1, 1, 1, 1, 1]])
    assert codes.sign(values).tolist() == [[1, 1, -1, 1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(codes.unpack(codes.pack(values), 8), codes.sign(values))


@given(BITS, st.integers(0, 2**32 - 1))
def test_hamming_distance_counts_differing_signs(bits: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(5, bits)), random.normal(size=(7, bits))
    distances = codes.hamming_distance(codes.pack(a), codes.pack(b))
    expected = (codes.sign(a)[:, None] != codes.sign(b)[None]).sum(axis=2)
    assert distances.dtype == np.uint16
    np.testing.assert_array_equal(distances, expected)


def test_hamming_distance_is_right_across_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.random.default_rng(0).integers(0, 2**64, (9, 2), np.uint64, endpoint=False)
    whole = codes.hamming_distance(a, a)
    monkeypatch.setattr(codes, "_BLOCK_ELEMENTS", 4)
    np.testing.assert_array_equal(codes.hamming_distance(a, a), whole)
    assert codes.hamming_distance(a[:0], a).shape == (0, 9)
    assert codes.hamming_distance(a, a[:0]).shape == (9, 0)


@pytest.mark.parametrize("bits", [-8, 0, 7, 12, 1032, 64.0, "64", None])
def test_other_lengths_are_refused(bits: object) -> None:
    with pytest.raises(CodeError, match=f"{bits!r} bits"):
        codes.check_bits(bits)


def test_values_that_are_not_codes_are_refused() -> None:
    with pytest.raises(CodeError, match="NaN"):
        codes.pack(np.full((1, 8), np.nan))
    with pytest.raises(CodeError, match="shape"):
        codes.pack(np.ones(8))
    with pytest.raises(CodeError, match=r"uint64 of shape \(n, 1\)"):
        codes.unpack(np.zeros((2, 2), np.uint64), 64)
    with pytest.raises(CodeError, match="int64"):
        codes.unpack(np.zeros((2, 1), np.int64), 64)
    with pytest.raises(CodeError, match="different widths"):
        codes.hamming_distance(np.zeros((1, 1), np.uint64), np.zeros((1, 2), np.uint64))
