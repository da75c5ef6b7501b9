"""Exact search for the nearest codes in Hamming distance.

The order is strict: by distance, then by row. Learned codes repeat, so the distinct codes are
searched and the hits are expanded to rows; codes that hardly repeat are searched as they are. The
first few queries build nothing: to read the codes once is faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rshash.codes import WORD_BITS, Words, check_words
from rshash.errors import CodeError
from rshash.repeats import Repeats, find_repeats

Found = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Distances and rows."""

UNPREPARED_QUERIES = 4
"""So many queries in all are answered without an index, which takes longer to build."""

_CHUNK = 1 << 17
"""Codes that are compared at once: what comes of them stays in the cache."""


class CodeIndex:
    """An index over a table of codes; its rows are the table's. Threads may share it."""

    def __init__(self, codes: Words, bits: int) -> None:
        """Takes codes; nothing is built before it pays, or before :meth:`prepare`.

        Args:
            codes: uint64 (n, words), in the order that breaks ties.
            bits: Length of the codes.

        Raises:
            CodeError: The codes do not fit `bits`.
        """
        self.bits = bits
        self.codes = check_words(codes, bits)
        self._lock = Lock()
        self._queries = 0
        self._prepared: _Prepared | None = None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.codes)

    def prepare(self) -> None:
        """Builds what makes many queries fast, unless it is there."""
        with self._lock:
            if self._prepared is None:
                self._prepared = _Prepared(self.codes, self.bits)

    def nearest(self, queries: Words, k: int, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Finds the k nearest rows of each query, exactly.

        Args:
            queries: uint64 (q, words).
            k: Rows wanted for each query, at least 1.
            allowed: bool (n,), the rows that may be found; all of them where it is None.

        Returns:
            Distances in bits, int32 (q, k'), and rows, int64 (q, k'), ordered by distance and then
            by row. k' is the smaller of k and the number of rows allowed.

        Raises:
            CodeError: The queries do not fit, k is below 1, or `allowed` has another length.
        """
        queries = check_words(queries, self.bits)
        _check_k(k)
        if allowed is not None:
            rows = self._rows(allowed)
            distances, places = _Flat(self.codes[rows], self.bits, len(queries)).search(queries, k)
            return distances, rows[places]
        if self._prepared is None:
            self._queries += len(queries)
            if self._queries <= UNPREPARED_QUERIES:
                return _scan_each(self.codes, queries, k, self.bits)
            self.prepare()
        assert self._prepared is not None
        return self._prepared.search(queries, k)

    def within(self, query: Words, radius: int, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Finds all rows within a radius of one query.

        Args:
            query: uint64 (1, words).
            radius: Bits by which a row may differ, at least 0.
            allowed: bool (n,), the rows that may be found; all of them where it is None.

        Returns:
            Distances in bits, int32 (m,), and rows, int64 (m,), ordered by distance and then by
            row.

        Raises:
            CodeError: The query does not fit, the radius is negative, or `allowed` has another
                length.
        """
        query = check_words(query, self.bits)
        if len(query) != 1 or radius < 0:
            raise CodeError(
                f"A radius search takes one query and a radius of at least 0, but found "
                f"{len(query)} and {radius}."
            )
        may = np.arange(len(self)) if allowed is None else self._rows(allowed)
        codes = self.codes if allowed is None else self.codes[may]
        near, bits = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for start, distances in _distances(codes, query[0], self.bits):
            close = np.flatnonzero(distances <= radius)
            near.append(start + close)
            bits.append(distances[close].astype(np.int32))
        found = np.concatenate(bits)
        order = np.argsort(found, kind="stable")
        return found[order], may[np.concatenate(near)[order]]

    def nearest_to_examples(
        self, like: Words, unlike: Words, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Finds the k rows that are most like some codes and least like others, exactly.

        A row's distance is its mean Hamming distance to `like` less half of that to `unlike`.

        Args:
            like: uint64 (p, words), p at least 1.
            unlike: uint64 (m, words).
            k: Rows wanted, at least 1.
            allowed: bool (n,), the rows that may be found; all of them where it is None.

        Returns:
            Distances, float64 (k',), and rows, int64 (k',), ordered by distance and then by row.

        Raises:
            CodeError: The codes do not fit, k is below 1, or `allowed` has another length.
        """
        like, unlike = check_words(like, self.bits), check_words(unlike, self.bits)
        _check_k(k)
        if not len(like):
            raise CodeError("There is no code that rows should be like: give at least one.")
        # In whole numbers, so that ties are ties.
        scale = 2 * len(like) * max(len(unlike), 1)
        scores = np.zeros(len(self), np.int64)
        for codes, weight in ((like, scale), (unlike, -(scale // 2))):
            for code in codes:
                for start, distances in _distances(self.codes, code, self.bits):
                    part = scores[start : start + len(distances)]
                    part += distances.astype(np.int64) * (weight // len(codes))
        rows = np.arange(len(self)) if allowed is None else self._rows(allowed)
        scores = scores[rows]
        if k < len(scores):
            near = np.flatnonzero(scores <= np.partition(scores, k - 1)[k - 1])
            rows, scores = rows[near], scores[near]
        order = np.argsort(scores, kind="stable")[:k]
        return scores[order] / scale, rows[order]

    def _rows(self, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        if allowed.dtype != bool or allowed.shape != (len(self),):
            raise CodeError(
                f"The filter must be bool of shape ({len(self)},), "
                f"but is {allowed.dtype} of shape {allowed.shape}."
            )
        return np.flatnonzero(allowed)


class _Prepared:
    """Codes made ready for many queries: the distinct ones where they repeat, else all."""

    def __init__(self, codes: Words, bits: int) -> None:
        self._repeats: Repeats | None = find_repeats(codes)
        searched = codes if self._repeats is None else self._repeats.distinct
        self._flat = _Flat(searched, bits)

    def search(self, queries: Words, k: int) -> Found:
        distances, found = self._flat.search(queries, k)
        if self._repeats is None:
            return distances, found
        # The k nearest rows are of the k nearest codes, since codes are in the order of their first
        # rows: each code before a row's own has a row before it.
        return self._repeats.expand(distances, found, k)


class _Flat:
    """Codes that are searched one by one, by faiss where it is there."""

    def __init__(self, codes: Words, bits: int, queries: int | None = None) -> None:
        self._codes, self._bits = codes, bits
        self._index = None
        many = queries is None or queries > UNPREPARED_QUERIES
        if many and (faiss := _faiss()) is not None:
            self._index = faiss.IndexBinaryFlat(WORD_BITS * codes.shape[1])
            self._index.add(_octets(codes))

    def search(self, queries: Words, k: int) -> Found:
        k = min(k, len(self._codes))
        if self._index is None or k == 0 or len(queries) == 0:
            return _scan_each(self._codes, queries, k, self._bits)
        # faiss keeps the first rows of equal distances, in their order; a test holds it to that.
        distances, rows = self._index.search(_octets(queries), k)
        return distances, rows


def _scan_each(codes: Words, queries: Words, k: int, bits: int) -> Found:
    k = min(k, len(codes))
    distances = np.empty((len(queries), k), np.int32)
    rows = np.empty((len(queries), k), np.int64)
    for i in range(len(queries) if k else 0):
        distances[i], rows[i] = _scan(codes, queries[i], k, bits)
    return distances, rows


def _scan(codes: Words, query: Words, k: int, bits: int) -> Found:
    best, rows = np.empty(0, np.int32), np.empty(0, np.int64)
    for start, distances in _distances(codes, query, bits):
        # Of equal distances the earlier row stays.
        near = np.flatnonzero(distances < (bits + 1 if len(best) < k else best[-1]))
        if len(near) > k:
            close = distances[near]
            near = near[close <= np.partition(close, k - 1)[k - 1]]
        if len(near):
            best = np.concatenate([best, distances[near].astype(np.int32)])
            rows = np.concatenate([rows, start + near])
            order = np.argsort(best, kind="stable")[:k]
            best, rows = best[order], rows[order]
    return best, rows


def _distances(codes: Words, query: Words, bits: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Chunk by chunk its first row and the distances of its rows; the next overwrites them."""
    size = min(_CHUNK, len(codes))
    differing = np.empty(size, np.uint64)
    ones, total = np.empty(size, np.uint8), np.empty(size, np.uint8 if bits < 256 else np.uint16)
    for start in range(0, len(codes), _CHUNK):
        chunk = codes[start : start + _CHUNK]
        n = len(chunk)
        for word in range(codes.shape[1]):
            np.bitwise_xor(chunk[:, word], query[word], out=differing[:n])
            np.bitwise_count(differing[:n], out=ones[:n] if word else total[:n])
            if word:
                np.add(total[:n], ones[:n], out=total[:n])
        yield start, total[:n]


def _check_k(k: int) -> None:
    if k < 1:
        raise CodeError(f"The number of nearest rows wanted must be at least 1, but is {k}.")


@cache
def _faiss() -> Any:
    # Where it is needed only: a single query is answered before faiss is imported.
    try:
        import faiss
    except ImportError:  # the core needs no more than numpy
        return None
    return faiss


def _octets(words: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words).view(np.uint8)
