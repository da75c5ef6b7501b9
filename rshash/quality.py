"""The quality gate: what codes must fulfil before anyone queries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rshash.codes import Words
from rshash.evaluation import Labels, ranking_quality
from rshash.rankings import CodeRanking
from rshash.statistics import agreement_with_features, code_statistics

if TYPE_CHECKING:
    from rshash.features import Features

NEIGHBOURS = 10

FEWEST_TILES = 20
"""Of fewer tiles a mean says little about the codes."""


@dataclass(frozen=True)
class Thresholds:
    """What codes must fulfil.

    Attributes:
        distinct: Distinct codes at the least, or a quarter of the tiles where that is less.
        balance: Share of tiles with the rarer value of a bit, mean of all bits, at the least.
        flips: Mean share of bits by which new codes of known tiles differ, at the most.
        agreement: Share of the ten nearest tiles by features that are among the ten nearest by
            codes, at the least.
        mean_ap: Mean average precision by labels, at the least.
    """

    distinct: int = 16
    balance: float = 0.1
    flips: float = 0.35
    agreement: float = 0.1
    mean_ap: float = 0.0


@dataclass(frozen=True)
class Measure:
    """Something that was measured of codes.

    Attributes:
        name: What.
        value: What was found.
        threshold: What it is compared to.
        at_most: Whether the value may not be greater; else it may not be smaller.
        tiles: How many tiles it was measured on.
    """

    name: str
    value: float
    threshold: float
    at_most: bool
    tiles: int

    @property
    def passes(self) -> bool:
        """Whether the value keeps to the threshold."""
        if self.at_most:
            return self.value <= self.threshold
        return self.value >= self.threshold

    def __str__(self) -> str:
        """Says what was expected and found."""
        bound = "at most" if self.at_most else "at least"
        return (
            f"{self.name} {self.value:.3g} over {self.tiles:,} tiles, "
            f"expected {bound} {self.threshold:.3g}"
        )


def measure_codes(codes: Words, bits: int, thresholds: Thresholds) -> list[Measure]:
    """Measures a whole table of codes, uint64 (n, words), n at least 1."""
    statistics, n = code_statistics(codes, bits), len(codes)
    ones = np.asarray(statistics.bit_balance)
    found = [
        Measure(
            "distinct codes",
            statistics.distinct,
            min(thresholds.distinct, -(-n // 4)),
            False,
            n,
        )
    ]
    if n >= FEWEST_TILES:
        balance = float(np.minimum(ones, 1 - ones).mean())
        found.append(Measure("bit balance", balance, thresholds.balance, False, n))
    return found


def measure_flips(
    flipped_bits: NDArray[np.integer], bits: int, thresholds: Thresholds
) -> list[Measure]:
    """Measures how far new codes are from the published ones of the same tiles.

    Args:
        flipped_bits: integer (m,), of the tiles that have both; nothing is measured of few.
        bits: Length of the codes.
        thresholds: What the codes must fulfil.
    """
    if len(flipped_bits) < FEWEST_TILES:
        return []
    share = float(np.mean(flipped_bits)) / bits
    return [Measure("flipped bits", share, thresholds.flips, True, len(flipped_bits))]


def measure_features(codes: Words, features: Features, thresholds: Thresholds) -> list[Measure]:
    """Measures whether codes have the neighbours that their features have; nothing of few tiles.

    Args:
        codes: uint64 (n, words) of a probe set.
        features: float (n, d), those that the codes were made from, scaled as for the model.
        thresholds: What the codes must fulfil.
    """
    if len(codes) < FEWEST_TILES:
        return []
    agreement = agreement_with_features(codes, features, NEIGHBOURS)
    name = "agreement with features"
    return [Measure(name, agreement, thresholds.agreement, False, len(codes))]


def measure_labels(codes: Words, labels: Labels, thresholds: Thresholds) -> list[Measure]:
    """Measures whether tiles find those that they share a class with; nothing of few tiles.

    Args:
        codes: uint64 (n, words) of a probe set.
        labels: integer (n,) or bool (n, classes).
        thresholds: What the codes must fulfil.
    """
    if len(codes) < FEWEST_TILES:
        return []
    quality = ranking_quality(
        CodeRanking(codes, codes), labels, labels, own_rows=np.arange(len(codes)), at=()
    )
    name = "MAP by land cover"
    return [Measure(name, quality.mean_ap, thresholds.mean_ap, False, len(codes))]


def failures(measures: Sequence[Measure]) -> list[str]:
    """What was expected and found, of the measures that do not pass."""
    return [str(measure) for measure in measures if not measure.passes]
