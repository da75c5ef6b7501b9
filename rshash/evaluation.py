"""Evaluation by one convention: the full ranking, with ties in expectation.

Tiles at one distance have no order among each other. Average precision is therefore the mean over
all their orders, in closed form: McSherry and Najork, "Computing information retrieval performance
measures efficiently in the presence of tied scores", ECIR 2008. File order has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rshash.codes import WORD_BITS, Words, check_words, hamming_distance, unpack
from rshash.errors import CodeError, RshashError

Labels = NDArray[np.integer] | NDArray[np.bool_]
"""One class per tile, integer (n,), or several, bool (n, classes)."""

_BLOCK_ELEMENTS = 1 << 23


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


def mean_average_precision(
    query_codes: Words,
    query_labels: Labels,
    database_codes: Words,
    database_labels: Labels,
    at: int | None = None,
) -> float:
    """Mean average precision of a ranking by Hamming distance, ties in expectation.

    A database tile is relevant where it shares a label with the query. Queries with nothing
    relevant take no part.

    Args:
        query_codes: uint64 (q, words).
        query_labels: integer (q,) or bool (q, classes).
        database_codes: uint64 (n, words).
        database_labels: As the queries' labels, for n tiles.
        at: Ranks that count, the denominator then being the smaller of `at` and the number of
            relevant tiles; the full ranking where it is None.

    Returns:
        A figure from 0 to 1.

    Raises:
        CodeError: The codes have different widths.
        RshashError: Codes and labels do not match, or no query has anything relevant.
    """
    _check_labels(query_codes, query_labels, database_codes, database_labels)
    precisions = []
    bins = WORD_BITS * query_codes.shape[1] + 1
    for queries in _blocks(len(query_codes), len(database_codes)):
        count = len(query_codes[queries])
        tiles, relevant = np.zeros((2, count * bins))
        for rows in _blocks(len(database_codes), count):
            cells = hamming_distance(query_codes[queries], database_codes[rows]).astype(np.int64)
            cells += bins * np.arange(count)[:, None]
            shared = _share_label(query_labels[queries], database_labels[rows])
            tiles += np.bincount(cells.ravel(), minlength=count * bins)
            relevant += np.bincount(cells[shared], minlength=count * bins)
        shape = (count, bins)
        precisions.append(_average_precision(tiles.reshape(shape), relevant.reshape(shape), at))
    return _mean(np.concatenate(precisions))


def mean_average_precision_of_features(
    query_features: NDArray[np.floating],
    query_labels: Labels,
    database_features: NDArray[np.floating],
    database_labels: Labels,
    at: int | None = None,
) -> float:
    """Mean average precision of a ranking by cosine, by the same convention as for codes.

    Args:
        query_features: (q, d), centred as the features are to be compared.
        query_labels: integer (q,) or bool (q, classes).
        database_features: (n, d).
        database_labels: As the queries' labels, for n tiles.
        at: Ranks that count; the full ranking where it is None.

    Returns:
        A figure from 0 to 1.

    Raises:
        RshashError: Features and labels do not match, or no query has anything relevant.
    """
    _check_labels(query_features, query_labels, database_features, database_labels)
    query_features, database_features = _unit(query_features), _unit(database_features)
    precisions = []
    for queries in _blocks(len(query_features), len(database_features)):
        cosines = query_features[queries] @ database_features.T
        shared = _share_label(query_labels[queries], database_labels)
        for scores, relevant in zip(cosines, shared, strict=True):
            order = np.argsort(-scores)
            starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
            tiles = np.diff(np.r_[starts, len(order)])
            hits = np.add.reduceat(relevant[order], starts, dtype=np.int64)
            precisions.append(_average_precision(tiles[None], hits[None], at))
    return _mean(np.concatenate(precisions))


def code_statistics(codes: Words, bits: int) -> CodeStatistics:
    """Statistics of a table of codes, uint64 (n, words).

    Raises:
        CodeError: The codes do not fit `bits`, or there are none.
    """
    n = len(check_words(codes, bits))
    if n == 0:
        raise CodeError("A table without codes has no statistics.")
    sums, products = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, n, 1 << 16):
        signs = unpack(codes[start : start + (1 << 16)], bits).astype(np.float32)
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
        distinct=len(np.unique(codes, axis=0)),
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

    Ties in Hamming distance count in expectation; a tile is no neighbour of itself.

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
    unit, found = _unit(features), 0.0
    for rows in _blocks(n, n):
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


def _average_precision(
    tiles: NDArray[np.number], relevant: NDArray[np.number], at: int | None
) -> NDArray[np.float64]:
    """Expected average precision (q,) from counts per group of tied tiles (q, groups), in order.

    Queries with nothing relevant give NaN.
    """
    size, hits = tiles.astype(np.float64), relevant.astype(np.float64)
    before = np.cumsum(tiles, axis=1).astype(np.int64) - tiles.astype(np.int64)
    hits_before = np.cumsum(hits, axis=1) - hits
    total = int(tiles[0].sum())
    limit = total if at is None else min(at, total)
    counted = np.clip(limit - before, 0, size).astype(np.int64)
    harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, total + 1))]
    # Sums of 1/rank and of (place within the group)/rank over the ranks that count.
    first = np.minimum(before, limit)
    reciprocals = harmonic[first + counted] - harmonic[first]
    places = counted - (before + 1) * reciprocals
    others = np.divide(hits - 1, size - 1, out=np.zeros_like(size), where=size > 1)
    share = np.divide(hits, size, out=np.zeros_like(size), where=size > 0)
    gains = (share * ((hits_before + 1) * reciprocals + others * places)).sum(axis=1)
    wanted = np.minimum(hits.sum(axis=1), limit)
    return np.divide(gains, wanted, out=np.full(len(gains), np.nan), where=wanted > 0)


def _mean(precisions: NDArray[np.float64]) -> float:
    if np.isnan(precisions).all():
        raise RshashError(
            "No query shares a label with any database tile: check that both use the same labels."
        )
    return float(np.nanmean(precisions))


def _share_label(queries: Labels, database: Labels) -> NDArray[np.bool_]:
    if queries.ndim == 1:
        return queries[:, None] == database[None]
    return queries.astype(np.float32) @ database.astype(np.float32).T > 0


def _check_labels(
    queries: NDArray, query_labels: Labels, database: NDArray, database_labels: Labels
) -> None:
    shapes = [values.shape for values in (queries, query_labels, database, database_labels)]
    if (
        len(queries) != len(query_labels)
        or len(database) != len(database_labels)
        or query_labels.shape[1:] != database_labels.shape[1:]
        or query_labels.ndim > 2
        or min(len(queries), len(database)) == 0
    ):
        raise RshashError(
            "Every query and every database tile needs its label, of the same kind: (n,) or "
            f"(n, classes). Found queries {shapes[0]} with labels {shapes[1]}, "
            f"database {shapes[2]} with labels {shapes[3]}."
        )


def _unit(features: NDArray[np.floating]) -> NDArray[np.floating]:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
