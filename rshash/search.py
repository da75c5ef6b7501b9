"""Exact search for the nearest codes in Hamming distance.

Learned codes repeat, so the distinct codes are searched and the hits are expanded to rows.
The order is strict: by distance, then by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rshash.codes import WORD_BITS, Words, check_words, hamming_distance
from rshash.errors import CodeError

try:
    import faiss
except ImportError:  # the core needs no more than numpy
    faiss = None  # type: ignore[assignment]


class CodeIndex:
    """An index over a table of codes; its rows are the table's."""

    def __init__(self, codes: Words, bits: int) -> None:
        """Indexes codes.

        Args:
            codes: uint64 (n, words), in the order that breaks ties.
            bits: Length of the codes.

        Raises:
            CodeError: The codes do not fit `bits`.
        """
        self.bits = bits
        self.codes = check_words(codes, bits)
        # Stable, so that the rows of one code stay in the table's order.
        self._rows = np.lexsort(self.codes.T[::-1]).astype(np.int64)
        ordered = self.codes[self._rows]
        first = np.ones(len(ordered), bool)
        first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        self._starts = np.flatnonzero(first)
        self._ends = np.append(self._starts[1:], len(ordered))
        self._distinct = np.ascontiguousarray(ordered[self._starts])
        self._flat = None
        if faiss is not None:
            self._flat = faiss.IndexBinaryFlat(WORD_BITS * self.codes.shape[1])
            self._flat.add(_octets(self._distinct))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.codes)

    @property
    def distinct(self) -> int:
        """Number of distinct codes."""
        return len(self._distinct)

    def nearest(
        self, queries: Words, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
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
        if k < 1:
            raise CodeError(f"The number of nearest rows wanted must be at least 1, but is {k}.")
        if allowed is not None and (allowed.dtype != bool or allowed.shape != (len(self),)):
            raise CodeError(
                f"The filter must be bool of shape ({len(self)},), "
                f"but is {allowed.dtype} of shape {allowed.shape}."
            )
        found = min(k, len(self) if allowed is None else int(allowed.sum()))
        distances = np.empty((len(queries), found), np.int32)
        rows = np.empty((len(queries), found), np.int64)
        if found == 0 or len(queries) == 0:
            return distances, rows
        counts = self._ends - self._starts
        if allowed is not None:
            counts = np.add.reduceat(allowed[self._rows], self._starts, dtype=np.int64)
        for i, (codes, code_distances) in enumerate(self._candidates(queries, found, counts)):
            distances[i], rows[i] = self._expand(codes, code_distances, found, allowed)
        return distances, rows

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
            CodeError: The codes do not fit, or k is below 1.
        """
        like, unlike = check_words(like, self.bits), check_words(unlike, self.bits)
        if k < 1 or not len(like):
            raise CodeError("Search for at least one row, by at least one code that it is like.")
        # In whole numbers, so that ties are ties.
        scale = 2 * len(like) * max(len(unlike), 1)
        scores = np.zeros(len(self), np.int64)
        for codes, weight in ((like, scale // len(like)), (unlike, -(scale // 2))):
            for code in codes:
                step = weight if codes is like else weight // len(unlike)
                scores += step * hamming_distance(code[None], self.codes)[0].astype(np.int64)
        rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        order = np.lexsort((rows, scores[rows]))[:k]
        return scores[rows[order]] / scale, rows[order]

    def _candidates(
        self, queries: Words, k: int, counts: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """For each query the distinct codes no farther than its k-th row, and their distances."""
        if self._flat is None or not counts.all():
            return [self._scan(query, k, counts) for query in queries]
        octets = _octets(queries)
        distances, codes = self._flat.search(octets, min(k, self.distinct))
        candidates = []
        for i in range(len(queries)):
            reached = np.searchsorted(np.cumsum(counts[codes[i]]), k)
            farthest = distances[i, min(reached, distances.shape[1] - 1)]
            if farthest < distances[i, -1] or distances.shape[1] == self.distinct:
                near = distances[i] <= farthest
                candidates.append((codes[i][near], distances[i][near]))
            else:
                # More codes may lie at the farthest distance than were asked for.
                _, tied_distances, tied = self._flat.range_search(
                    octets[i : i + 1], int(farthest) + 1
                )
                candidates.append((tied, tied_distances.astype(np.int32)))
        return candidates

    def _scan(
        self, query: Words, k: int, counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        distances = hamming_distance(query[None], self._distinct)[0]
        rows_at = np.bincount(distances, weights=counts)
        farthest = np.searchsorted(np.cumsum(rows_at), k)
        near = np.flatnonzero((distances <= farthest) & (counts > 0))
        return near, distances[near].astype(np.int32)

    def _expand(
        self,
        codes: NDArray[np.int64],
        distances: NDArray[np.int32],
        k: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        sizes = self._ends[codes] - self._starts[codes]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = self._rows[np.repeat(self._starts[codes], sizes) + offsets]
        row_distances = np.repeat(distances, sizes)
        if allowed is not None:
            keep = allowed[rows]
            rows, row_distances = rows[keep], row_distances[keep]
        order = np.lexsort((rows, row_distances))[:k]
        return row_distances[order], rows[order]


def _octets(words: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words).view(np.uint8)
