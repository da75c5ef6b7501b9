"""Codes that repeat: the distinct ones, and the rows of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rshash.codes import Words

SAMPLE = 1 << 16
_DIGIT = 16
_HASH_BITS = 48
"""A million distinct codes have the same hash twice in one table of 600."""

_SORT_KEYS = 1 << 62


@dataclass(frozen=True)
class Repeats:
    """Distinct codes in the order of their first rows.

    Attributes:
        distinct: uint64 (d, words).
        rows: Rows of the table, those of each code side by side and ascending.
        starts: Where each code's rows begin, int64 (d,).
        sizes: How many each code has, int64 (d,).
    """

    distinct: Words
    rows: NDArray[np.integer]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def expand(
        self, distances: NDArray[np.int32], codes: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The k nearest rows, given the k nearest codes.

        Args:
            distances: int32 (q, d'), ascending.
            codes: int64 (q, d'), numbers of the codes at these distances; d' is the smaller of k
                and the number of codes.
            k: Rows wanted for each query.

        Returns:
            Distances, int32 (q, k'), and rows, int64 (q, k'), ordered by distance and then by row.
        """
        n = len(self.rows)
        k = min(k, n)
        if not len(codes) or not k:
            return np.empty((len(codes), k), np.int32), np.empty((len(codes), k), np.int64)
        span = n * (int(distances[:, -1].max()) + 1)
        at_once = max(1, _SORT_KEYS // span)
        parts = [
            self._expand(distances[i : i + at_once], codes[i : i + at_once], k, span)
            for i in range(0, len(codes), at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([d for d, _ in parts]), np.concatenate([r for _, r in parts])

    def _expand(
        self, distances: NDArray[np.int32], codes: NDArray[np.int64], k: int, span: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        sizes = self.sizes[codes]
        reached = np.cumsum(sizes, axis=1)
        last = np.minimum((reached < k).sum(axis=1), codes.shape[1] - 1)
        queries = np.arange(len(codes))
        near = distances <= distances[queries, last][:, None]
        # No more than k rows of a code can be wanted, and they are its first.
        taken = np.minimum(sizes, k)[near]
        starts, found = self.starts[codes[near]], distances[near]
        query_of = np.broadcast_to(queries[:, None], codes.shape)[near]
        total = np.cumsum(taken)
        offsets = np.arange(total[-1]) - np.repeat(total - taken - starts, taken)
        # One number holds query, distance and row, and sorts as they do.
        keys = np.repeat(query_of * span + found * np.int64(len(self.rows)), taken)
        keys += self.rows[offsets]
        keys.sort()
        first = np.searchsorted(keys, queries * span)
        chosen = keys[first[:, None] + np.arange(k)] - (queries * span)[:, None]
        bits, rows = np.divmod(chosen, len(self.rows))
        return bits.astype(np.int32), rows


def find_repeats(codes: Words) -> Repeats | None:
    """The distinct codes of a table, or None where that would save little.

    Args:
        codes: uint64 (n, words).
    """
    n = len(codes)
    if n < 2:
        return None
    if _mean_repeats(codes) < 1.0:
        return None
    hashes = _hashes(codes)
    order = _radix_order(hashes)
    ordered = codes[order]
    new = _differ(ordered)
    if not np.array_equal(new, _differ(hashes[order, None])):
        # Two codes have one hash.
        order = np.lexsort(codes.T[::-1])
        new = _differ(codes[order])
    starts = np.flatnonzero(new)
    if 2 * len(starts) > n:
        return None
    sizes = np.diff(np.append(starts, n))
    by_first_row = np.argsort(order[starts])
    starts, sizes = starts[by_first_row], sizes[by_first_row]
    rows = order.astype(np.int32) if n < 2**31 else order
    return Repeats(np.ascontiguousarray(codes[order[starts]]), rows, starts, sizes)


def _hashes(codes: Words) -> NDArray[np.uint64]:
    mixed = np.zeros(len(codes), np.uint64)
    for word in codes.T:
        mixed ^= word
        mixed ^= mixed >> np.uint64(32)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed >>= np.uint64(64 - _HASH_BITS)
    return mixed


def _mean_repeats(codes: Words) -> float:
    """How many other rows share a row's code on average, from a sample."""
    n = len(codes)
    size = min(n, SAMPLE)
    sample = _hashes(codes[np.arange(size) * n // size])
    counts = np.unique(sample, return_counts=True)[1]
    return float((counts * (counts - 1.0)).sum() / (size * (size - 1.0)) * (n - 1))


def _radix_order(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    # numpy sorts 16 bits in linear time.
    order = np.argsort(hashes.astype(np.uint16), kind="stable")
    for shift in range(_DIGIT, _HASH_BITS, _DIGIT):
        digit = (hashes >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def _differ(ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each row differs from the one before it; the first one does."""
    differ = np.ones(len(ordered), bool)
    differ[1:] = ordered[1:, 0] != ordered[:-1, 0]
    for word in ordered.T[1:]:
        differ[1:] |= word[1:] != word[:-1]
    return differ
