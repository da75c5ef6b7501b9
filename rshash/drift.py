"""Drift: whether tiles have become unlike those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rshash.quality import FEWEST_TILES, NEIGHBOURS, Measure
from rshash.statistics import agreement_with_features, code_statistics

if TYPE_CHECKING:
    from rshash.features import Features
    from rshash.hasher import FeatureHasher
    from rshash.scaling import FeatureScaling

FAMILIAR = 0.99
"""Share of the training tiles within the radius of what is familiar."""


@dataclass(frozen=True)
class Reference:
    """What the codes and features of some of a model's training tiles were like.

    Attributes:
        tiles: How many tiles. Later ones are measured on as many: two of the measures depend on it.
        agreement: Share of a tile's ten nearest by features that are among its ten nearest by code.
        distinct: Distinct codes.
        balance: Share of tiles with the rarer value of a bit, mean of all bits.
        radius: Distance from the mean of the training features that 99 % of the tiles lie within.
    """

    tiles: int
    agreement: float
    distinct: int
    balance: float
    radius: float


@dataclass(frozen=True)
class DriftLimits:
    """From where on a model should be trained anew.

    Attributes:
        fall: Share by which agreement, distinct codes or bit balance may fall below what they were
            when the model was trained.
        unfamiliar: Share of tiles that may lie farther from the training data than 99 % of it.
    """

    fall: float = 0.25
    unfamiliar: float = 0.2


def measure_reference(hasher: FeatureHasher, features: Features) -> Reference | None:
    """Measures some of a model's training tiles.

    Args:
        hasher: The model.
        features: float32 (n, d), unscaled.

    Returns:
        None of fewer than 20 tiles, of which a mean says little.
    """
    if len(features) < FEWEST_TILES:
        return None
    agreement, distinct, balance = _figures(hasher, features)
    radius = float(np.quantile(_distances(hasher.scaling, features), FAMILIAR))
    return Reference(len(features), agreement, distinct, balance, radius)


def measure_drift(
    hasher: FeatureHasher, features: Features, reference: Reference, limits: DriftLimits
) -> list[Measure]:
    """Measures tiles as they are now against those that the model was trained on.

    Codes are those that the network makes, also of tiles whose published code was learned.

    Args:
        hasher: The model.
        features: float32 (n, d), unscaled, of `reference.tiles` tiles.
        reference: What training tiles were like.
        limits: What is still no drift.
    """
    agreement, distinct, balance = _figures(hasher, features)
    least, n = 1 - limits.fall, len(features)
    outside = float((_distances(hasher.scaling, features) > reference.radius).mean())
    return [
        Measure("agreement with features", agreement, least * reference.agreement, False, n),
        Measure("distinct codes", distinct, least * reference.distinct, False, n),
        Measure("bit balance", balance, least * reference.balance, False, n),
        Measure("share of unfamiliar tiles", outside, limits.unfamiliar, True, n),
    ]


def _figures(hasher: FeatureHasher, features: Features) -> tuple[float, int, float]:
    codes = hasher.encode_features(features)
    statistics = code_statistics(codes, hasher.head.sizes["bits"])
    ones = np.asarray(statistics.bit_balance)
    return (
        agreement_with_features(codes, hasher.scaling.apply(features), NEIGHBOURS),
        statistics.distinct,
        float(np.minimum(ones, 1 - ones).mean()),
    )


def _distances(scaling: FeatureScaling, features: Features) -> NDArray[np.float32]:
    """From the mean of the training features, (n,); in whitened features Mahalanobis distances."""
    centred = np.asarray(features, np.float32) - scaling.mean
    if scaling.projection is not None:
        centred = centred @ scaling.projection
    distances: NDArray[np.float32] = np.linalg.norm(centred, axis=1)
    return distances
