"""Hash codes as packed 64-bit words.

Bit 0 of a code is the most significant bit of word 0; bits beyond the code's length are zero.
A bit is one where the value it stands for is zero or positive: sign(0) is +1 everywhere.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rshash.errors import CodeError

Words = NDArray[np.uint64]
"""Packed codes, uint64 (n, words)."""

WORD_BITS = 64
MAXIMUM_BITS = 1024
_BLOCK_ELEMENTS = 1 << 20


def check_bits(bits: int) -> int:
    """Returns the code length if codes may have it.

    Raises:
        CodeError: The length is not a multiple of 8 from 8 to 1024.
    """
    if not isinstance(bits, Integral) or bits % 8 or not 8 <= bits <= MAXIMUM_BITS:
        raise CodeError(
            f"A code cannot have {bits!r} bits: "
            f"use a multiple of 8 from 8 to {MAXIMUM_BITS}, such as 64."
        )
    return bits


def word_count(bits: int) -> int:
    """Number of 64-bit words that hold a code of `bits` bits."""
    return -(-check_bits(bits) // WORD_BITS)


def check_words(words: ArrayLike, bits: int) -> Words:
    """Returns packed codes as uint64 (n, words) if they can hold `bits` bits each.

    Raises:
        CodeError: The array is not of unsigned 64-bit words, or has another shape.
    """
    array = np.asarray(words)
    expected = word_count(bits)
    if array.ndim != 2 or array.shape[1] != expected or array.dtype != np.uint64:
        raise CodeError(
            f"Codes of {bits} bits are uint64 of shape (n, {expected}), "
            f"but found {array.dtype} of shape {array.shape}: pack them with rshash.codes.pack."
        )
    return array


def sign(values: ArrayLike) -> NDArray[np.int8]:
    """Signs of values as int8 of the same shape, +1 or -1; the sign of 0 is +1."""
    return np.where(np.asarray(values) >= 0, np.int8(1), np.int8(-1))


def pack(values: ArrayLike) -> Words:
    """Packs values into codes by their sign.

    Args:
        values: (n, bits) of any real type; a value of zero or more is a one.

    Returns:
        uint64 (n, ceil(bits / 64)).

    Raises:
        CodeError: The array is not (n, bits) with an allowed number of bits, or holds NaN.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise CodeError(f"Values to pack have shape (n, bits), but found shape {array.shape}.")
    n, bits = array.shape
    width = word_count(bits)
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise CodeError("Values to pack hold NaN: leave out the tiles that have no features.")
    octets = np.zeros((n, 8 * width), np.uint8)
    octets[:, : bits // 8] = np.packbits(array >= 0, axis=1)
    return octets.view(">u8").astype(np.uint64)


def unpack(words: ArrayLike, bits: int) -> NDArray[np.int8]:
    """Unpacks codes to int8 (n, bits) of +1 and -1: the inverse of `pack`.

    Raises:
        CodeError: The words do not fit codes of `bits` bits.
    """
    octets = check_words(words, bits).astype(">u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=bits).astype(np.int8) * np.int8(2) - np.int8(1)


def hamming_distance(a: Words, b: Words) -> NDArray[np.uint16]:
    """Numbers of differing bits between each code of `a` (n, words) and each of `b` (m, words).

    Returns:
        uint16 (n, m).

    Raises:
        CodeError: The codes have different widths.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise CodeError(
            f"Codes of different widths cannot be compared: found shapes {a.shape} and {b.shape}. "
            "Codes of different models never compare."
        )
    distances = np.zeros((len(a), len(b)), np.uint16)
    # In blocks that stay in the cache: the exclusive or is four times as large as the result.
    columns = min(len(b), _BLOCK_ELEMENTS) or 1
    rows = max(1, _BLOCK_ELEMENTS // columns)
    for i in range(0, len(a), rows):
        for j in range(0, len(b), columns):
            block = distances[i : i + rows, j : j + columns]
            for word in range(a.shape[1]):
                block += np.bitwise_count(
                    a[i : i + rows, word, None] ^ b[None, j : j + columns, word]
                )
    return distances
