"""The scaling of features that learning needs, the same when codes are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rshash.errors import FeatureError, TrainingError
from rshash.features import Features
from rshash.streaming import Rows, blocks

ROWS_PER_COMPONENT = 8

LARGEST_FEATURE, SMALLEST_SPREAD = 1e17, 1e-17
"""Beyond, lengths of vectors are infinite, or nothing, in float32."""

ROUNDING_STEPS = 4
"""Steps of their precision by which features may be off: what varies by less is rounding alone."""


class FeatureScaling:
    """Centres a source's features and brings every vector to the length sqrt(dimensions).

    Without it the losses' scale follows the extractor's, and the codes can collapse to a few.
    Features of random filters are whitened too: nearly all their variance is brightness.
    """

    def __init__(self, mean: Features, projection: Features | None = None) -> None:
        self.mean = np.asarray(mean, np.float32)
        # Eigenvectors come by columns, but model files hold arrays by rows alone.
        rows = None if projection is None else np.ascontiguousarray(projection, np.float32)
        self.projection = rows

    @property
    def dimensions(self) -> int:
        """Length of the scaled vectors."""
        return len(self.mean) if self.projection is None else self.projection.shape[1]

    @classmethod
    def fit(cls, features: Rows, components: int | None = None) -> FeatureScaling:
        """Takes the statistics of features (n, d) over the rows that are not NaN.

        The features are read once, block by block.

        Args:
            features: float (n, d).
            components: Principal components to whiten to, fewer where there are fewer than eight
                rows for each, or where the others vary by rounding alone; without it the features
                are centred only.

        Raises:
            FeatureError: The features are not (n, d), some are infinite or NaN in a row that is not
                NaN as a whole, all rows are NaN, or the same up to rounding, or there are not as
                many components.
        """
        if len(features.shape) != 2:
            raise FeatureError(f"Features have shape (n, d), but found shape {features.shape}.")
        dimensions = features.shape[1]
        if components is not None and not 1 <= components <= dimensions:
            raise FeatureError(
                f"Features of length {dimensions} have 1 to {dimensions} principal components, but "
                f"{components} are asked for: set components to what the extractor wants."
            )
        moments = _Moments(dimensions, with_covariance=components is not None)
        for first_row, rows in blocks(features):
            moments.add(first_row, rows)
        moments.check(features.shape[0])
        if components is None:
            return cls(moments.mean.astype(np.float32))
        kept = max(1, min(components, moments.count // ROWS_PER_COMPONENT))
        return cls(moments.mean.astype(np.float32), _whitening(moments, kept))

    def check_shape(self, features: Rows) -> None:
        """Refuses features that are not rows of the length the scaling was fitted to.

        Raises:
            FeatureError: They are not, or no array of numbers.
        """
        _check_numbers(features)
        shape = tuple(features.shape)
        if len(shape) == 2 and shape[1] == len(self.mean):
            return
        reason = "they come from another extractor, so use the model's own"
        if len(shape) != 2:
            reason = "give one row for each tile, also where there is one"
        raise FeatureError(
            f"Features of shape (n, {len(self.mean)}) are expected, "
            f"but found shape {shape}: {reason}."
        )

    def apply(self, features: Features) -> Features:
        """Scaled features, float32 (n, dimensions); a row of NaN stays one, the mean becomes zero.

        Raises:
            FeatureError: The features have another length than those the scaling was fitted to.
        """
        self.check_shape(features)
        centred = np.asarray(features, np.float32) - self.mean
        if self.projection is not None:
            centred = centred @ self.projection
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return centred * (np.sqrt(self.dimensions) / np.where(length == 0, 1, length)).astype("f4")


def check_sources(sources: Sequence[Rows], names: Sequence[str] | None = None) -> None:
    """Refuses sources that no training can use.

    Args:
        sources: Features (n, d_s) of the same tiles from each source, the primary one first. In
            the others a row of NaN is a tile that lacks the source.
        names: What to call the sources in messages; their numbers without it.

    Raises:
        FeatureError: A source's features are no array of numbers, or not (n, d).
        TrainingError: There is no list of sources, they have different numbers of rows, or tiles
            lack the primary source.
    """
    if not isinstance(sources, Sequence):
        raise TrainingError(
            "A list with each source's features is needed, also of one source, but found a "
            f"{type(sources).__name__}."
        )
    if not sources:
        raise TrainingError("At least one source's features are needed, but found none.")
    for source in sources:
        _check_numbers(source)
    shapes = [tuple(source.shape) for source in sources]
    if any(len(shape) != 2 for shape in shapes):
        raise FeatureError(f"Features have shape (n, d), but found the shapes {shapes}.")
    rows = [n for n, _ in shapes]
    if len(set(rows)) > 1:
        names = names or [f"source {number}" for number in range(1, len(sources) + 1)]
        found = ", ".join(f"{name} has {n}" for name, n in zip(names, rows, strict=True))
        raise TrainingError(f"All sources must describe the same tiles, but {found} rows.")
    missing = [
        start + row
        for start, block in blocks(sources[0])
        for row in np.flatnonzero(np.isnan(block).any(axis=1)).tolist()
    ]
    if missing:
        primary = f" of the primary source, {names[0]}" if names else " of the primary source"
        raise TrainingError(
            f"{len(missing)} of {rows[0]} tiles lack features{primary if len(rows) > 1 else ''}, "
            f"the first in row {missing[0]}: leave them out of training."
        )


def _check_numbers(features: Rows) -> None:
    rows = features[:1] if getattr(features, "shape", ()) else features
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        name = type(features).__name__
        raise FeatureError(
            "Features are a numpy array or a FeatureFile of numbers, but found a "
            f"{name}{f' of {rows.dtype}' if isinstance(rows, np.ndarray) else ''}."
        )


class _Moments:
    """Mean and covariance of rows, in float64, gathered block by block."""

    def __init__(self, dimensions: int, *, with_covariance: bool) -> None:
        self.count = 0
        self._sum = np.zeros(dimensions)
        self._products = np.zeros((dimensions, dimensions)) if with_covariance else None
        self._origin: NDArray[np.float64] | None = None
        self._least = np.full(dimensions, np.inf)
        self._greatest = np.full(dimensions, -np.inf)
        self._infinite: list[int] = []
        self._partly: list[int] = []
        # Scaled features are float32, whatever they were before.
        self.precision = float(np.finfo(np.float32).eps)

    def add(self, first_row: int, rows: NDArray[np.floating]) -> None:
        lacking = np.isnan(rows)
        present = ~lacking.any(axis=1)
        self._partly += (first_row + np.flatnonzero(~present & ~lacking.all(axis=1))).tolist()
        infinite = present & np.isinf(rows).any(axis=1)
        self._infinite += (first_row + np.flatnonzero(infinite)).tolist()
        values = rows[present & ~infinite]
        if values.dtype == np.float16:
            self.precision = float(np.finfo(np.float16).eps)
        if not len(values):
            return
        if self._origin is None:
            # Near the mean, so that squares keep their digits.
            self._origin = values.mean(axis=0, dtype=np.float64)
        self._least = np.minimum(self._least, values.min(axis=0))
        self._greatest = np.maximum(self._greatest, values.max(axis=0))
        self.count += len(values)
        centred = values - self._origin
        self._sum += centred.sum(axis=0)
        if self._products is not None:
            self._products += centred.T @ centred

    def check(self, n_rows: int) -> None:
        if self._infinite:
            raise FeatureError(
                f"{len(self._infinite)} of {n_rows} tiles have infinite features, the first in row "
                f"{self._infinite[0]}: leave them out, or compute them again."
            )
        if self._partly:
            raise FeatureError(
                f"{len(self._partly)} of {n_rows} tiles have NaN among their features, the first "
                f"in row {self._partly[0]}: compute them again, or make the whole row NaN where a "
                "tile lacks the source."
            )
        if not self.count:
            raise FeatureError(f"None of {n_rows} tiles has features: nothing to scale by.")
        size = np.maximum(np.abs(self._least), np.abs(self._greatest))
        if size.max() > LARGEST_FEATURE:
            raise FeatureError(
                f"Features are as large as {size.max():.3g}, whose squares float32 cannot hold: "
                "multiply them all by one number."
            )
        if 0 < (self._greatest - self._least).max() < SMALLEST_SPREAD:
            raise FeatureError(
                f"Features differ by {(self._greatest - self._least).max():.3g} at most, whose "
                "squares float32 cannot hold: multiply them all by one number."
            )
        constant = self._greatest - self._least <= ROUNDING_STEPS * self.precision * size
        if self.count > 1 and constant.all():
            raise FeatureError(
                f"All {self.count} tiles have the same features, up to rounding: nothing can be "
                "learned from them. Check the extractor and the pixels it read."
            )

    @property
    def mean(self) -> NDArray[np.float64]:
        assert self._origin is not None
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> NDArray[np.float64]:
        assert self._products is not None
        offset = self._sum / self.count
        return self._products / self.count - np.outer(offset, offset)


def _whitening(moments: _Moments, components: int) -> Features:
    covariance = moments.covariance
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1][:components], directions[:, ::-1][:, :components]
    squares = np.diag(covariance) + moments.mean**2
    rounding = (ROUNDING_STEPS * moments.precision) ** 2 * (squares @ directions**2)
    rounding += len(covariance) * np.finfo(np.float64).eps * variances[0]
    kept = variances > rounding
    kept[0] = True
    scale = np.sqrt(np.maximum(variances[kept], 1e-30))
    return (directions[:, kept] / scale).astype(np.float32)
