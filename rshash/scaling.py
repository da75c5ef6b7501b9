"""The scaling of features that learning needs, the same when codes are made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rshash.errors import FeatureError
from rshash.features import Features

ROWS_PER_COMPONENT = 8


class FeatureScaling:
    """Centres a source's features and brings every vector to the length sqrt(dimensions).

    Without it the losses' scale follows the extractor's, and the codes can collapse to a few.
    Features of random filters are whitened too: nearly all their variance is brightness.
    """

    def __init__(self, mean: Features, projection: Features | None = None) -> None:
        self.mean = np.asarray(mean, np.float32)
        self.projection = None if projection is None else np.asarray(projection, np.float32)

    @property
    def dimensions(self) -> int:
        """Length of the scaled vectors."""
        return len(self.mean) if self.projection is None else self.projection.shape[1]

    @classmethod
    def fit(cls, features: Features, components: int | None = None) -> FeatureScaling:
        """Takes the statistics of features (n, d) over the rows that hold no NaN.

        Args:
            features: float32 (n, d).
            components: Principal components to whiten to, fewer where there are fewer than eight
                rows for each; without it the features are centred only.

        Raises:
            FeatureError: No row is free of NaN, or the features are not (n, d).
        """
        if features.ndim != 2:
            raise FeatureError(f"Features have shape (n, d), but found shape {features.shape}.")
        present = features[~np.isnan(features).any(axis=1)]
        if not len(present):
            raise FeatureError(f"None of {len(features)} tiles has features: nothing to scale by.")
        mean = present.mean(axis=0, dtype=np.float64)
        if components is None:
            return cls(mean)
        kept = max(1, min(components, features.shape[1], len(present) // ROWS_PER_COMPONENT))
        return cls(mean, _whitening(present - mean, kept))

    def apply(self, features: Features) -> Features:
        """Scaled features, float32 (n, dimensions); a row of NaN stays one, the mean becomes zero.

        Raises:
            FeatureError: The features have another length than those the scaling was fitted to.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise FeatureError(
                f"Features of shape (n, {len(self.mean)}) are expected, "
                f"but found shape {features.shape}: they come from another extractor."
            )
        centred = np.asarray(features, np.float32) - self.mean
        if self.projection is not None:
            centred = centred @ self.projection
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return centred * (np.sqrt(self.dimensions) / np.where(length == 0, 1, length)).astype("f4")


def _whitening(centred: NDArray[np.floating], components: int) -> Features:
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances[::-1][:components], directions[:, ::-1][:, :components]
    # A constant feature adds directions without variance: they carry nothing, whitened or not.
    scale = np.sqrt(np.maximum(variances, 1e-12 * variances[0] + 1e-30))
    return (directions / scale).astype(np.float32)
