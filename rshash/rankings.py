"""Rankings of database tiles: by codes, by network outputs against codes, by features.

A ranking gives every database tile a group for each query: 0 is the nearest, and tiles of one
group are tied. It is made block by block, so that it fits memory at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rshash.codes import Words, hamming_distance, unpack, word_count
from rshash.errors import CodeError, FeatureError

Groups = tuple[slice, NDArray[np.int64]]
"""A block of the queries, and the groups (block, n) of the database tiles for each of them."""

_BLOCK_ELEMENTS = 1 << 21
_SCORE_ELEMENTS = 1 << 25
_ROWS_AT_ONCE = 1 << 14


class Ranking(Protocol):
    """The order of n database tiles for each of q queries."""

    @property
    def shape(self) -> tuple[int, int]:
        """(q, n)."""

    def __iter__(self) -> Iterator[Groups]:
        """Blocks of queries and the groups of the database tiles for them."""


@dataclass(frozen=True)
class CodeRanking:
    """By Hamming distance between codes.

    Attributes:
        queries: uint64 (q, words).
        database: uint64 (n, words).
    """

    queries: Words
    database: Words

    @property
    def shape(self) -> tuple[int, int]:
        """(q, n)."""
        return len(self.queries), len(self.database)

    def __iter__(self) -> Iterator[Groups]:
        """Groups are distances in bits.

        Raises:
            CodeError: The codes have different widths.
        """
        for rows in blocks(*self.shape):
            yield rows, hamming_distance(self.queries[rows], self.database).astype(np.int64)


@dataclass(frozen=True)
class AsymmetricRanking:
    """By the inner product of network outputs u of the queries and codes v of the database.

    With |v|² = c for every code, it is the order by Euclidean distance between u and v.

    Attributes:
        queries: float (q, bits), network outputs.
        database: uint64 (n, words), codes.
    """

    queries: NDArray[np.floating]
    database: Words

    def __post_init__(self) -> None:
        """Refuses outputs and codes of different lengths, and outputs that are not finite."""
        bits = self.queries.shape[1]
        if self.database.shape[1] != word_count(bits):
            raise CodeError(
                f"Network outputs of {bits} bits need codes of {word_count(bits)} words, "
                f"but found {self.database.shape[1]}: they come from different models."
            )
        check_finite(self.queries, "network outputs of the queries")

    @property
    def shape(self) -> tuple[int, int]:
        """(q, n)."""
        return len(self.queries), len(self.database)

    def __iter__(self) -> Iterator[Groups]:
        """Groups are dense ranks of the inner products. Learned codes repeat: each is used once."""
        bits = self.queries.shape[1]
        distinct, inverse = np.unique(self.database, axis=0, return_inverse=True)

        def signs(rows: slice) -> NDArray[np.float64]:
            return unpack(distinct[rows], bits).astype(np.float64)

        for start, scores in _scores(self.queries.astype(np.float64), signs, len(distinct)):
            for rows in blocks(len(scores), len(self.database)):
                yield _moved(rows, start), _dense_ranks(scores[rows])[:, inverse]


@dataclass(frozen=True)
class FeatureRanking:
    """By the cosine between features.

    Attributes:
        queries: (q, d), centred as the features are to be compared.
        database: (n, d).
    """

    queries: NDArray[np.floating]
    database: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Refuses features of different lengths, or that are not finite."""
        if self.queries.shape[1:] != self.database.shape[1:]:
            raise FeatureError(
                "Features of queries and database must have one length, but have shapes "
                f"{self.queries.shape} and {self.database.shape}."
            )
        check_finite(self.queries, "features of the queries")
        check_finite(self.database, "features of the database")

    @property
    def shape(self) -> tuple[int, int]:
        """(q, n)."""
        return len(self.queries), len(self.database)

    def __iter__(self) -> Iterator[Groups]:
        """Groups are dense ranks of the cosines."""

        def unit(rows: slice) -> NDArray[np.float64]:
            return unit_vectors(self.database[rows])

        for start, scores in _scores(unit_vectors(self.queries), unit, len(self.database)):
            for rows in blocks(*scores.shape):
                yield _moved(rows, start), _dense_ranks(scores[rows])


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that hold about two million elements each."""
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def unit_vectors(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features (n, d) as float64 of length 1; zeros stay zeros."""
    vectors = np.asarray(features, np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length == 0, 1, length)


def check_finite(values: NDArray[np.floating], name: str) -> None:
    """Refuses what has no place in an order: it would be ranked as it lies in the array."""
    found = [
        rows.start + np.flatnonzero(~np.isfinite(values[rows]).all(axis=1))
        for rows in blocks(*values.shape)
    ]
    wrong = np.concatenate(found) if found else np.empty(0)
    if wrong.size:
        raise FeatureError(
            f"The {name} are not finite in {wrong.size} of {len(values)} rows, the first is row "
            f"{wrong[0]}: leave these tiles out."
        )


def _scores(
    queries: NDArray[np.float64], database: Callable[[slice], NDArray[np.float64]], n: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Inner products (block, n) with all database vectors, after the block's first query.

    They are rounded to float32: the last bits of a product depend on its place in the array, which
    would part vectors that are equally far.
    """
    step = max(1, _SCORE_ELEMENTS // max(1, n))
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        scores = np.empty((len(block), n), np.float32)
        for first in range(0, n, _ROWS_AT_ONCE):
            rows = slice(first, min(first + _ROWS_AT_ONCE, n))
            scores[:, rows] = block @ database(rows).T
        yield start, scores


def _dense_ranks(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Ranks of the scores in each row: 0 for the largest, without gaps, equal ones share one."""
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    ranks = np.zeros(scores.shape, np.int64)
    steps = np.zeros(scores.shape, np.int64)
    np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=steps[:, 1:])
    np.put_along_axis(ranks, order, steps, axis=1)
    return ranks


def _moved(rows: slice, start: int) -> slice:
    return slice(rows.start + start, rows.stop + start)
