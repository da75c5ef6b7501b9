"""Two models side by side: both codes of the same tiles, by the same measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rshash.errors import RshashError
from rshash.report import CodedTiles, Entry, EvaluationReport, evaluate, rounded, write_report
from rshash.report_text import table
from rshash.scaling import FeatureScaling
from rshash.statistics import CodeStatistics, agreement_with_features

EQUAL = 0.02
"""Share by which figures may differ and still count as equal."""

NEIGHBOURS = 10


@dataclass(frozen=True)
class ComparedModel:
    """One side of a comparison.

    Attributes:
        name: The model's ID.
        bits: Length of its codes.
        features: What its features go by: the same where both models have the same extractor.
        tiles: Its codes and features of the tiles, and their labels.
    """

    name: str
    bits: int
    features: str
    tiles: CodedTiles


@dataclass(frozen=True)
class ComparedMeasure:
    """A figure of both models.

    Attributes:
        name: What was measured.
        candidate: The figure of the one that may take the other's place.
        other: The other's.
        lower_is_better: Whether the lower figure is the better one.
    """

    name: str
    candidate: float
    other: float
    lower_is_better: bool = False

    @property
    def better(self) -> str:
        """``candidate``, ``other``, or ``equal``: figures that differ by 2 % at the most."""
        if abs(self.candidate - self.other) <= EQUAL * max(abs(self.candidate), abs(self.other)):
            return "equal"
        return "candidate" if (self.candidate < self.other) == self.lower_is_better else "other"

    def __str__(self) -> str:
        """Says both figures, the better one first."""
        figures = sorted((self.candidate, self.other), reverse=not self.lower_is_better)
        return f"{self.name} ({figures[0]:.3g} against {figures[1]:.3g})"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        candidate: ID of the model that may take the other's place.
        other: ID of the other.
        measures: The figures of both, those that count most first.
        report: Both side by side, with the baselines.
    """

    candidate: str
    other: str
    measures: tuple[ComparedMeasure, ...]
    report: EvaluationReport

    @property
    def verdict(self) -> str:
        """Which is better by which measure, in sentences."""
        sides = {"candidate": self.candidate, "other": self.other}
        said = [
            f"{name} is better by {found}."
            for side, name in sides.items()
            if (found := self._by(side))
        ]
        if equal := self._by("equal"):
            said.append(f"Equal, to within {EQUAL:.0%}: {equal}.")
        return " ".join(said)

    def rows(self) -> list[dict[str, Any]]:
        """The figures as rows of a table."""
        names = {"candidate": self.candidate, "other": self.other, "equal": ""}
        return [
            {
                "measure": one.name + (", lower is better" if one.lower_is_better else ""),
                self.candidate: round(one.candidate, 3),
                self.other: round(one.other, 3),
                "better": names[one.better],
            }
            for one in self.measures
        ]

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON, figures to six decimals."""
        measures = [asdict(one) | {"better": one.better} for one in self.measures]
        found: dict[str, Any] = rounded(
            {
                "candidate": self.candidate,
                "other": self.other,
                "verdict": self.verdict,
                "measures": measures,
                "side_by_side": asdict(self.report),
            }
        )
        return found

    def save(self, folder: Path, advice: str = "") -> list[Path]:
        """Writes report.json, report.md and the pictures into a folder, which is made.

        Args:
            folder: The folder.
            advice: Stands behind the verdict: what to do next.

        Returns:
            The files. Without labels there is no precision_recall.png.
        """
        head, *rows = [list(self.rows()[0]), *([str(v) for v in r.values()] for r in self.rows())]
        title = f"# {self.candidate} beside {self.other}"
        top = "\n\n".join(filter(None, [title, self.verdict, advice, table(head, rows)]))
        return write_report(self.report, folder, self.as_json(), top)

    def _by(self, side: str) -> str:
        return ", ".join(str(one) for one in self.measures if one.better == side)


def compare(candidate: ComparedModel, other: ComparedModel, seed: int = 0) -> Comparison:
    """Compares two models' codes of the same tiles, each tile being searched for among the others.

    Args:
        candidate: The one that may take the other's place.
        other: The other.
        seed: Seed of all draws and of the baselines.

    Raises:
        RshashError: The tiles are not the same, or fewer than eleven.
    """
    n = len(candidate.tiles.codes)
    if len(other.tiles.codes) != n or n <= NEIGHBOURS:
        raise RshashError(
            f"Models are compared on the same tiles, at least {NEIGHBOURS + 1}, but found {n} and "
            f"{len(other.tiles.codes)}."
        )
    mine, theirs = (
        evaluate(side.name, side.bits, side.tiles, seed=seed) for side in (candidate, other)
    )
    measures = (
        *_by_labels(mine, theirs),
        *_by_features(candidate, other),
        *_of_bits(mine, theirs),
    )
    return Comparison(candidate.name, other.name, measures, _side_by_side(mine, theirs))


def _by_labels(candidate: EvaluationReport, other: EvaluationReport) -> list[ComparedMeasure]:
    mine, theirs = (report.entries[0].quality for report in (candidate, other))
    if mine is None or theirs is None:
        return []
    return [
        ComparedMeasure("mean AP by labels", mine.mean_ap, theirs.mean_ap),
        *(
            ComparedMeasure(f"mean AP at {cut}", figure, theirs.mean_ap_at[cut])
            for cut, figure in mine.mean_ap_at.items()
        ),
    ]


def _by_features(candidate: ComparedModel, other: ComparedModel) -> list[ComparedMeasure]:
    measures, sides = [], (candidate, other)
    spaces = {side.features: side.tiles.features for side in sides}
    for name, features in spaces.items():
        if features is not None:
            scaled = FeatureScaling.fit(features).apply(features)
            mine, theirs = (
                agreement_with_features(side.tiles.codes, scaled, NEIGHBOURS) for side in sides
            )
            which = f" {name}" if len(spaces) > 1 else ""
            measures.append(ComparedMeasure(f"agreement with features{which}", mine, theirs))
    return measures


def _of_bits(candidate: EvaluationReport, other: EvaluationReport) -> list[ComparedMeasure]:
    mine, theirs = (next(iter(report.statistics.values())) for report in (candidate, other))
    return [
        ComparedMeasure("distinct codes", mine.distinct, theirs.distinct),
        ComparedMeasure("bit balance", _balance(mine), _balance(theirs)),
        ComparedMeasure(
            "bit correlation",
            mine.mean_abs_bit_correlation,
            theirs.mean_abs_bit_correlation,
            lower_is_better=True,
        ),
    ]


def _balance(statistics: CodeStatistics) -> float:
    ones = np.asarray(statistics.bit_balance)
    return float(np.minimum(ones, 1 - ones).mean())


def _side_by_side(candidate: EvaluationReport, other: EvaluationReport) -> EvaluationReport:
    """One report of both models, with the baselines of both where they differ."""
    reports = (candidate, other)
    own = [replace(report.entries[0], name=report.method) for report in reports]
    baselines: dict[tuple[Any, ...], Entry] = {}
    for report in reports:
        for entry in report.entries[1:]:
            baselines.setdefault((entry.name, entry.agreement, _mean_ap(entry)), entry)
    return replace(
        candidate,
        method=f"{candidate.method} and {other.method}",
        bits=max(candidate.bits, other.bits),
        entries=(*own, *baselines.values()),
        statistics={report.method: next(iter(report.statistics.values())) for report in reports},
        distances={
            f"{report.method}: {kind}": counts
            for report in reports
            for kind, counts in report.distances.items()
        },
    )


def _mean_ap(entry: Entry) -> float | None:
    return None if entry.quality is None else entry.quality.mean_ap
