"""An evaluation report: a table of codes beside its baselines, as figures, text and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rshash.baselines import fit_baselines
from rshash.codes import Words, check_words
from rshash.errors import RshashError
from rshash.evaluation import Labels, RankingQuality, distance_histogram, ranking_quality
from rshash.features import Features
from rshash.rankings import AsymmetricRanking, CodeRanking, FeatureRanking, Ranking, check_finite
from rshash.scaling import FeatureScaling
from rshash.statistics import (
    CodeStatistics,
    agreement_with_features,
    code_statistics,
    flipped_bits,
)

QUERIES = 1000
PROBE_TILES = 2000
FITTED_TILES = 20_000
NEIGHBOURS = 10


@dataclass(frozen=True)
class CodedTiles:
    """Tiles with their codes and what is known of them, row by row.

    Attributes:
        codes: uint64 (n, words), signs of the network's outputs.
        labels: integer (n,) or bool (n, classes).
        features: float32 (n, d), those that the codes were made from.
        outputs: float (n, bits), the network's outputs. With the database's learned codes they give
            the asymmetric ranking; only queries need them.
        learned: uint64 (n, words), learned codes; only the database has them.
    """

    codes: Words
    labels: Labels | None = None
    features: Features | None = None
    outputs: NDArray[np.floating] | None = None
    learned: Words | None = None

    def __post_init__(self) -> None:
        """Refuses arrays of different lengths."""
        for name in ("labels", "features", "outputs", "learned"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.codes):
                raise RshashError(
                    f"Every tile needs a row of {name}: "
                    f"expected {len(self.codes)}, found {len(values)}."
                )

    def take(self, rows: NDArray[np.integer]) -> CodedTiles:
        """The same of some tiles only."""
        return CodedTiles(
            self.codes[rows],
            labels=None if self.labels is None else self.labels[rows],
            features=None if self.features is None else self.features[rows],
            outputs=None if self.outputs is None else self.outputs[rows],
            learned=None if self.learned is None else self.learned[rows],
        )


@dataclass(frozen=True)
class Entry:
    """One line of the comparison.

    Attributes:
        name: The method and its kind of ranking.
        bytes_per_tile: What a database tile takes.
        quality: Retrieval by labels; None without labels.
        agreement: Share of the ten nearest tiles by features that are among the ten nearest by
            these codes; None without features, and for features themselves.
    """

    name: str
    bytes_per_tile: int
    quality: RankingQuality | None
    agreement: float | None


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` found.

    Attributes:
        method: Name of the method.
        bits: Length of the codes.
        database_tiles: Tiles ranked for each query.
        entries: The comparison, the method first and its baselines after it.
        statistics: How the bits are used, by the kind of codes.
        distances: Pairs of a query and a database tile at each Hamming distance from 0 to bits, by
            the kind of pair.
        flipped_bits: Mean number of bits in which a tile's code differs from its previous one; None
            without previous codes.
        flipped_tiles: Share of the tiles whose code differs from the previous one.
        notes: How it was measured, in sentences.
    """

    method: str
    bits: int
    database_tiles: int
    entries: tuple[Entry, ...]
    statistics: dict[str, CodeStatistics]
    distances: dict[str, tuple[int, ...]]
    flipped_bits: float | None
    flipped_tiles: float | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON, figures to six decimals."""
        return rounded(asdict(self))

    def save(self, folder: Path) -> list[Path]:
        """Writes report.json, report.md and the pictures into a folder, which is made.

        Returns:
            The files. Without labels there is no precision_recall.png.
        """
        return write_report(self, folder, self.as_json())


def write_report(
    report: EvaluationReport, folder: Path, content: dict[str, Any], head: str | None = None
) -> list[Path]:
    """Writes report.json, report.md and a report's pictures into a folder, which is made.

    Args:
        report: The report.
        folder: The folder.
        content: Of report.json.
        head: What stands in place of the report's title.

    Returns:
        The files. Without labels there is no precision_recall.png.
    """
    from rshash.report_pictures import draw_pictures
    from rshash.report_text import as_markdown

    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_pictures(report, folder)
    texts = {
        "report.json": json.dumps(content, indent=1) + "\n",
        "report.md": as_markdown(report, [picture.name for picture in pictures], head),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*(folder / name for name in texts), *pictures]


def evaluate(
    method: str,
    bits: int,
    database: CodedTiles,
    queries: CodedTiles | None = None,
    *,
    previous: Words | None = None,
    max_queries: int = QUERIES,
    seed: int = 0,
) -> EvaluationReport:
    """Evaluates codes by the one convention, beside the baselines on the same features.

    Labels give retrieval figures and the precision-recall curve; features give the baselines and
    the agreement with them. Without either, what remains are the statistics of the bits.

    Args:
        method: Name of the method, such as mrhash.
        bits: Length of the codes.
        database: The tiles that are ranked.
        queries: The tiles to rank them for. Without them, tiles of the database are the queries,
            and a tile is no neighbour of itself.
        previous: The database tiles' codes in the version before, uint64 (n, words).
        max_queries: Most queries; of more, this many are drawn by the seed.
        seed: Seed of all draws and of the baselines.

    Returns:
        The report; the same input gives the same report.

    Raises:
        CodeError: The codes do not fit `bits`.
        RshashError: There are no tiles, or only one side has labels, or labels never match.
    """
    sides = [database] if queries is None else [database, queries]
    for side in sides:
        check_words(side.codes, bits)
        if len(side.codes) == 0:
            raise RshashError("Nothing to evaluate: the database and the queries need tiles.")
    notes = [f"{len(database.codes):,} database tiles."]
    drawn, own_rows = _queries(database, queries, max_queries, seed, notes)
    if (drawn.labels is None) != (database.labels is None):
        raise RshashError("Queries and database need labels both, or neither does.")
    if database.labels is None:
        notes.append("No labels: only measures that need none.")
    flips = None if previous is None else flipped_bits(previous, database.codes)
    statistics = {"network codes": code_statistics(database.codes, bits)}
    if database.learned is not None:
        statistics["learned codes"] = code_statistics(database.learned, bits)
    return EvaluationReport(
        method=method,
        bits=bits,
        database_tiles=len(database.codes),
        entries=tuple(_entries(method, bits, database, drawn, own_rows, seed, notes)),
        statistics=statistics,
        distances=_distances(bits, database, drawn, own_rows),
        flipped_bits=None if flips is None else float(flips.mean()),
        flipped_tiles=None if flips is None else float((flips > 0).mean()),
        notes=tuple(notes),
    )


def _queries(
    database: CodedTiles,
    queries: CodedTiles | None,
    max_queries: int,
    seed: int,
    notes: list[str],
) -> tuple[CodedTiles, NDArray[np.int64] | None]:
    """The queries, and which database rows they are where they come from there."""
    source = database if queries is None else queries
    rows = _draw(len(source.codes), max_queries, seed)
    drawn = len(rows) < len(source.codes)
    kind = "tiles of the database" if queries is None else "query tiles"
    notes.append(
        f"{len(rows):,} of {len(source.codes):,} {kind} are the queries, drawn with seed {seed}."
        if drawn
        else f"All {len(rows):,} {kind} are the queries."
    )
    if queries is None:
        notes.append("A tile is left out of the ranking for itself.")
        return source.take(rows), rows
    return (source.take(rows) if drawn else source), None


def _entries(
    method: str,
    bits: int,
    database: CodedTiles,
    queries: CodedTiles,
    own_rows: NDArray[np.int64] | None,
    seed: int,
    notes: list[str],
) -> Iterator[Entry]:
    database, queries = _scaled(database, queries, seed)
    probe = _draw(len(database.codes), PROBE_TILES, seed)
    features = None
    if database.features is not None and len(probe) > NEIGHBOURS:
        features = database.features[probe]
        notes.append(
            f"Agreement: share of a tile's {NEIGHBOURS} nearest by features that are among its "
            f"{NEIGHBOURS} nearest by codes, over {len(probe):,} database tiles."
        )

    def entry(name: str, bits: int, ranking: Ranking, probed: Words | None = None) -> Entry:
        quality = agreement = None
        if queries.labels is not None and database.labels is not None:
            quality = ranking_quality(ranking, queries.labels, database.labels, own_rows=own_rows)
        if probed is not None and features is not None:
            agreement = agreement_with_features(probed, features, NEIGHBOURS)
        return Entry(name, bits // 8, quality, agreement)

    name = f"{method}, {bits} bit"
    symmetric = CodeRanking(queries.codes, database.codes)
    if queries.outputs is None or database.learned is None:
        yield entry(name, bits, symmetric, database.codes[probe])
    else:
        yield entry(f"{name}, symmetric", bits, symmetric, database.codes[probe])
        asymmetric = AsymmetricRanking(queries.outputs, database.learned)
        yield entry(f"{name}, asymmetric", bits, asymmetric)
    if queries.features is None or database.features is None:
        notes.append("No features: no baselines.")
        return
    rows = _draw(len(database.codes), FITTED_TILES, seed)
    notes.append(
        "Baselines use the same features, centred and scaled to one length, and are fitted to "
        f"{len(rows):,} database tiles."
    )
    dimensions = database.features.shape[1]
    if database.labels is not None:
        cosine = FeatureRanking(queries.features, database.features)
        yield entry(f"float cosine, {dimensions} dimensions", 32 * dimensions, cosine)
    for baseline, hashed in fit_baselines(database.features[rows], bits, seed).items():
        codes = hashed.encode(database.features)
        ranking = CodeRanking(hashed.encode(queries.features), codes)
        yield entry(f"{baseline}, {hashed.bits} bit", hashed.bits, ranking, codes[probe])


def _scaled(database: CodedTiles, queries: CodedTiles, seed: int) -> tuple[CodedTiles, CodedTiles]:
    if database.features is None:
        return database, queries
    check_finite(database.features, "features of the database")
    if queries.features is not None:
        check_finite(queries.features, "features of the queries")
    rows = _draw(len(database.codes), FITTED_TILES, seed)
    scaling = FeatureScaling.fit(database.features[rows])
    of_queries = None if queries.features is None else scaling.apply(queries.features)
    return (
        replace(database, features=scaling.apply(database.features)),
        replace(queries, features=of_queries),
    )


def _distances(
    bits: int,
    database: CodedTiles,
    queries: CodedTiles,
    own_rows: NDArray[np.int64] | None,
) -> dict[str, tuple[int, ...]]:
    ranking = CodeRanking(queries.codes, database.codes)
    if queries.labels is None or database.labels is None:
        one_label = np.zeros(len(queries.codes), int), np.zeros(len(database.codes), int)
        counts = distance_histogram(ranking, *one_label, own_rows=own_rows)
        return {"all pairs": counts.relevant[: bits + 1]}
    counts = distance_histogram(ranking, queries.labels, database.labels, own_rows=own_rows)
    return {
        "with a label in common": counts.relevant[: bits + 1],
        "without": counts.irrelevant[: bits + 1],
    }


def _draw(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """Sorted rows: all n, or `most` of them drawn by the seed."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def rounded(value: Any) -> Any:
    """Content of a JSON file, figures to six decimals."""
    if isinstance(value, dict):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value
