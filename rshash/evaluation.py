"""Evaluation by one convention: the full ranking, with ties in expectation.

Tiles that are equally far have no order among each other. Every figure is therefore the mean over
all their orders, in closed form: McSherry and Najork, "Computing information retrieval performance
measures efficiently in the presence of tied scores", ECIR 2008. File order has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rshash.codes import WORD_BITS, Words
from rshash.errors import RshashError
from rshash.rankings import CodeRanking, FeatureRanking, Ranking

Labels = NDArray[np.integer] | NDArray[np.bool_]
"""One class per tile, integer (n,), or several, bool (n, classes)."""

CURVE_POINTS = 100


@dataclass(frozen=True)
class RankingQuality:
    """How well a ranking puts the relevant tiles first; all figures are from 0 to 1.

    Attributes:
        queries: Queries that count, which have something relevant.
        mean_ap: Mean average precision over the full ranking.
        mean_ap_at: The same over the first ranks only, by their number; the denominator is the
            smaller of that number and the number of relevant tiles.
        ranks: Numbers of first ranks at which the curve is taken, growing by a constant factor.
        precision: Expected share of these first tiles that are relevant, mean over the queries.
        recall: Expected share of the relevant tiles that are among them, mean over the queries.
    """

    queries: int
    mean_ap: float
    mean_ap_at: dict[int, float]
    ranks: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class DistanceHistogram:
    """Numbers of pairs of a query and a database tile at each Hamming distance, from 0 to bits."""

    relevant: tuple[int, ...]
    irrelevant: tuple[int, ...]


def ranking_quality(
    ranking: Ranking,
    query_labels: Labels,
    database_labels: Labels,
    *,
    own_rows: NDArray[np.integer] | None = None,
    at: Sequence[int] = (20, 100),
) -> RankingQuality:
    """Measures a ranking, ties in expectation.

    A database tile is relevant where it shares a label with the query. Queries with nothing
    relevant take no part.

    Args:
        ranking: The database tiles' order for each of q queries.
        query_labels: integer (q,) or bool (q, classes).
        database_labels: As the queries' labels, for n tiles.
        own_rows: integer (q,), the database row that is the query itself and is left out for it,
            or -1 where there is none.
        at: Numbers of first ranks to measure beside the full ranking.

    Returns:
        The figures, and the precision-recall curve.

    Raises:
        RshashError: Ranking and labels do not match, no query has anything relevant, or a number
            of first ranks is below 1.
    """
    if any(number < 1 for number in at):
        raise RshashError(f"Figures are of the first rank or more, but found at {list(at)}.")
    _check_labels(ranking, query_labels, database_labels, own_rows)
    ranks = _curve_ranks(ranking.shape[1])
    limits = (None, *at)
    precisions: list[list[NDArray[np.float64]]] = [[] for _ in limits]
    curves = np.zeros((2, len(ranks)))
    for tiles, relevant in _group_counts(ranking, query_labels, database_labels, own_rows):
        counts = relevant.any(axis=1)
        tiles, relevant = tiles[counts], relevant[counts]
        for values, limit in zip(precisions, limits, strict=True):
            values.append(_average_precision(tiles, relevant, limit))
        curves += _curve_sums(tiles, relevant, ranks)
    joined = [np.concatenate(values) for values in precisions]
    queries = len(joined[0])
    if own_rows is not None and ranking.shape[1] == 1:
        raise RshashError("A tile is left out of its own ranking: at least two are needed.")
    if queries == 0:
        raise RshashError(
            "No query shares a label with any database tile: check that both use the same labels."
        )
    mean_ap, *mean_ap_at = (float(values.mean()) for values in joined)
    precision, recall = curves / queries
    return RankingQuality(
        queries=queries,
        mean_ap=mean_ap,
        mean_ap_at=dict(zip(at, mean_ap_at, strict=True)),
        ranks=tuple(ranks.tolist()),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
    )


def mean_average_precision(
    query_codes: Words,
    query_labels: Labels,
    database_codes: Words,
    database_labels: Labels,
    at: int | None = None,
) -> float:
    """Mean average precision of a ranking by Hamming distance: see `ranking_quality`.

    Args:
        query_codes: uint64 (q, words).
        query_labels: integer (q,) or bool (q, classes).
        database_codes: uint64 (n, words).
        database_labels: As the queries' labels, for n tiles.
        at: Ranks that count; the full ranking where it is None.

    Returns:
        A figure from 0 to 1.

    Raises:
        CodeError: The codes have different widths.
        RshashError: Codes and labels do not match, or no query has anything relevant.
    """
    return _one_figure(CodeRanking(query_codes, database_codes), query_labels, database_labels, at)


def mean_average_precision_of_features(
    query_features: NDArray[np.floating],
    query_labels: Labels,
    database_features: NDArray[np.floating],
    database_labels: Labels,
    at: int | None = None,
) -> float:
    """Mean average precision of a ranking by cosine: see `ranking_quality`.

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
    ranking = FeatureRanking(query_features, database_features)
    return _one_figure(ranking, query_labels, database_labels, at)


def distance_histogram(
    ranking: CodeRanking,
    query_labels: Labels,
    database_labels: Labels,
    *,
    own_rows: NDArray[np.integer] | None = None,
) -> DistanceHistogram:
    """Counts relevant and irrelevant pairs at each Hamming distance.

    Args:
        ranking: The codes.
        query_labels: integer (q,) or bool (q, classes).
        database_labels: As the queries' labels, for n tiles.
        own_rows: As in `ranking_quality`.

    Returns:
        The counts at distances from 0 to the width of the packed codes.

    Raises:
        RshashError: Codes and labels do not match.
    """
    sums = np.zeros((2, WORD_BITS * ranking.queries.shape[1] + 1), np.int64)
    for tiles, relevant in _group_counts(ranking, query_labels, database_labels, own_rows):
        sums[0, : tiles.shape[1]] += relevant.sum(axis=0)
        sums[1, : tiles.shape[1]] += (tiles - relevant).sum(axis=0)
    return DistanceHistogram(tuple(sums[0].tolist()), tuple(sums[1].tolist()))


def _one_figure(
    ranking: Ranking, query_labels: Labels, database_labels: Labels, at: int | None
) -> float:
    limits = () if at is None else (at,)
    quality = ranking_quality(ranking, query_labels, database_labels, at=limits)
    return quality.mean_ap if at is None else quality.mean_ap_at[at]


def _group_counts(
    ranking: Ranking,
    query_labels: Labels,
    database_labels: Labels,
    own_rows: NDArray[np.integer] | None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers of tiles and of relevant ones in each group of tied tiles, both (block, groups)."""
    _check_labels(ranking, query_labels, database_labels, own_rows)
    several = database_labels.astype(np.float32) if database_labels.ndim == 2 else None
    for queries, groups in ranking:
        if several is None:
            shared = query_labels[queries, None] == database_labels
        else:
            shared = query_labels[queries] @ several.T > 0
        count, bins = len(groups), int(groups.max()) + 2
        cells = groups + bins * np.arange(count)[:, None]
        if own_rows is not None:
            own = own_rows[queries]
            found = np.flatnonzero(own >= 0)
            # The last bin is thrown away.
            cells[found, own[found]] = bins * (found + 1) - 1
        tiles = np.bincount(cells.ravel(), minlength=count * bins).reshape(count, bins)
        relevant = np.bincount(cells[shared], minlength=count * bins).reshape(count, bins)
        yield tiles[:, :-1], relevant[:, :-1]


def _average_precision(
    tiles: NDArray[np.int64], relevant: NDArray[np.int64], at: int | None
) -> NDArray[np.float64]:
    """Expected average precision (q,) from counts per group of tied tiles (q, groups), in order.

    McSherry and Najork 2008, section 2.4. Every query has something relevant.
    """
    size, hits = tiles.astype(np.float64), relevant.astype(np.float64)
    total = tiles.sum(axis=1, keepdims=True)
    limit = total if at is None else np.minimum(at, total)
    before = np.cumsum(tiles, axis=1) - tiles
    hits_before = np.cumsum(hits, axis=1) - hits
    counted = np.clip(limit - before, 0, tiles)
    # Sums of 1/rank and of (place within the group)/rank over the ranks that count.
    first = np.minimum(before, limit)
    harmonic = _harmonic_numbers(int(total.max(initial=0)))
    reciprocals = harmonic[first + counted] - harmonic[first]
    places = counted - (before + 1) * reciprocals
    others = np.divide(hits - 1, size - 1, out=np.zeros_like(size), where=size > 1)
    share = np.divide(hits, size, out=np.zeros_like(size), where=size > 0)
    gains = (share * ((hits_before + 1) * reciprocals + others * places)).sum(axis=1)
    return gains / np.minimum(hits.sum(axis=1), limit[:, 0])


@lru_cache(maxsize=1)
def _harmonic_numbers(last: int) -> NDArray[np.float64]:
    return np.r_[0.0, np.cumsum(1 / np.arange(1, last + 1))]


def _curve_ranks(tiles: int) -> NDArray[np.int64]:
    return np.unique(np.geomspace(1, tiles, CURVE_POINTS).round().astype(np.int64))


def _curve_sums(
    tiles: NDArray[np.int64], relevant: NDArray[np.int64], ranks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Expected precision and recall at each number of first ranks, summed over queries.

    McSherry and Najork 2008, sections 2.1 and 2.2: within a group the expected number of relevant
    tiles grows evenly.
    """
    sums = np.zeros((2, len(ranks)))
    for size, hits in zip(tiles, relevant, strict=True):
        reached = np.r_[0, np.cumsum(size)]
        found = np.interp(ranks, reached, np.r_[0, np.cumsum(hits)])
        sums += found / np.minimum(ranks, reached[-1]), found / hits.sum()
    return sums


def _check_labels(
    ranking: Ranking,
    query_labels: Labels,
    database_labels: Labels,
    own_rows: NDArray[np.integer] | None,
) -> None:
    queries, tiles = ranking.shape
    for labels in (query_labels, database_labels):
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "biu":
            raise RshashError(
                "Labels are numpy arrays, integer (n,) or bool (n, classes), but found "
                f"{getattr(labels, 'dtype', type(labels).__name__)}."
            )
    if (
        (len(query_labels), len(database_labels)) != (queries, tiles)
        or query_labels.shape[1:] != database_labels.shape[1:]
        or query_labels.ndim > 2
        or min(queries, tiles) == 0
    ):
        raise RshashError(
            "Every query and every database tile needs its label, of the same kind: (n,) or "
            f"(n, classes). Found {queries} queries with labels {query_labels.shape}, "
            f"{tiles} database tiles with labels {database_labels.shape}."
        )
    if own_rows is not None and (own_rows.shape != (queries,) or own_rows.max() >= tiles):
        raise RshashError(
            f"Each of {queries} queries needs its own row of {tiles}, or -1, "
            f"but found rows of shape {own_rows.shape} up to {own_rows.max()}."
        )
