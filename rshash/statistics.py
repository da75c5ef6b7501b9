"""Operational measures of a table of codes, which need no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rshash.codes import Words, check_words, hamming_distance, unpack
from rshash.errors import CodeError, RshashError
from rshash.rankings import blocks, unit_vectors

_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class CodeStatistics:
    """How well a table of codes uses its bits.

    Attributes:
        codes: Number of codes.
        distinct: Number of distinct ones.
        bit_balance: Share of ones in each bit; one half is best.
        max_abs_bit_correlation: Largest absolute correlation of two bits; a constant bit has none.
        mean_abs_bit_correlation: Mean absolute correlation over all pairs of bits.
    """

    codes: int
    distinct: int
    bit_balance: tuple[float, ...]
    max_abs_bit_correlation: float
    mean_abs_bit_correlation: float


def code_statistics(codes: Words, bits: int) -> CodeStatistics:
    """Statistics of a table of codes, uint64 (n, words).

    Raises:
        CodeError: The codes do not fit `bits`, or there are none.
    """
    n = len(check_words(codes, bits))
    if n == 0:
        raise CodeError("A table without codes has no statistics.")
    sums, products = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, n, _ROWS_AT_ONCE):
        signs = unpack(codes[start : start + _ROWS_AT_ONCE], bits).astype(np.float32)
        sums += signs.sum(axis=0)
        products += signs.T @ signs
    means = sums / n
    deviations = np.sqrt(np.maximum(1 - means**2, 0))
    scale = np.outer(deviations, deviations)
    correlations = np.divide(
        products / n - np.outer(means, means), scale, out=np.zeros_like(scale), where=scale > 0
    )
    pairs = np.abs(correlations[np.triu_indices(bits, 1)])
    return CodeStatistics(
        codes=n,
        # Rows of one number sort ten times as fast as numbers than as rows.
        distinct=len(np.unique(codes[:, 0]) if codes.shape[1] == 1 else np.unique(codes, axis=0)),
        bit_balance=tuple(((means + 1) / 2).tolist()),
        max_abs_bit_correlation=float(pairs.max()),
        mean_abs_bit_correlation=float(pairs.mean()),
    )


def flipped_bits(old: Words, new: Words) -> NDArray[np.int64]:
    """Numbers of bits that differ between the old and the new code of each tile, (n,).

    Raises:
        CodeError: The two tables have different shapes.
    """
    if old.shape != new.shape:
        raise CodeError(
            f"Old and new codes must be of the same tiles and the same length, "
            f"but have shapes {old.shape} and {new.shape}."
        )
    return np.bitwise_count(old ^ new).sum(axis=1, dtype=np.int64)


def agreement_with_features(codes: Words, features: NDArray[np.floating], k: int = 10) -> float:
    """Share of each tile's k nearest tiles by features that are among its k nearest by codes.

    Ties in Hamming distance count in expectation; a tile is no neighbour of itself. The features
    may be another source's than the codes': then the figure tells, without labels, how much of what
    that source shows the codes have learned.

    Args:
        codes: uint64 (n, words) of a probe set of tiles.
        features: float (n, d) of the same tiles, compared by cosine.
        k: Neighbours, fewer than n.

    Returns:
        A figure from 0 to 1.

    Raises:
        RshashError: Codes and features do not match, or k is not from 1 to n - 1.
    """
    n = len(codes)
    if len(features) != n or not 1 <= k < n:
        raise RshashError(
            f"Agreement needs codes and features of the same tiles and k below their number, "
            f"but found {n} codes, {len(features)} features and k = {k}."
        )
    unit, found = unit_vectors(features).astype(np.float32), 0.0
    for rows in blocks(n, n):
        own = np.arange(n)[rows, None]
        cosines = unit[rows] @ unit.T
        np.put_along_axis(cosines, own, -np.inf, axis=1)
        nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        distances = hamming_distance(codes[rows], codes).astype(np.int32)
        np.put_along_axis(distances, own, np.iinfo(np.int32).max, axis=1)
        farthest = np.partition(distances, k - 1, axis=1)[:, k - 1, None]
        closer = (distances < farthest).sum(axis=1, keepdims=True)
        tied = (distances == farthest).sum(axis=1, keepdims=True)
        reached = np.take_along_axis(distances, nearest, axis=1)
        found += ((reached < farthest) + (reached == farthest) * (k - closer) / tied).sum()
    return float(found / (n * k))
