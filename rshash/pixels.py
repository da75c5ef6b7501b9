"""Hashing from pixels: a feature extractor that is fine-tuned while codes are learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rshash.errors import TrainingError
from rshash.features import Extractor
from rshash.scaling import FeatureScaling
from rshash.streaming import Rows, blocks

COMPARED_TILES = 16

ROUNDING = 0.02
"""Share of their length by which features in half precision may differ from those in single."""


@dataclass(frozen=True)
class TilePixels:
    """The primary source's tiles, in the order of the features.

    Attributes:
        rows: Reflectance, float (n, bands * y * x), NaN where there is no data.
        shape: (bands, y, x) of a tile.
        extractor: What made the primary source's features of these tiles.
    """

    rows: Rows
    shape: tuple[int, int, int]
    extractor: Extractor

    def check(self, features: Rows) -> None:
        """Refuses pixels that the extractor does not make these features of.

        All pixels are read once, and the features of a few tiles are computed again.

        Args:
            features: The primary source's, float (n, d), without NaN.

        Raises:
            TrainingError: The pixels are of other tiles or of another shape than they say, a band
                of a tile is empty, or the features are another extractor's.
        """
        n_tiles, dimensions = features.shape
        bands, height, width = self.shape
        expected = (n_tiles, bands * height * width)
        if tuple(self.rows.shape) != expected:
            raise TrainingError(
                f"Pixels of {n_tiles} tiles of {bands} bands with {height} x {width} pixels have "
                f"the shape {expected}, but found {tuple(self.rows.shape)}."
            )
        if bands != len(self.extractor.bands):
            raise TrainingError(
                f"Extractor {self.extractor.id} reads the bands "
                f"{', '.join(self.extractor.bands)}, but the pixels have {bands} bands."
            )
        if dimensions != self.extractor.dimensions:
            raise TrainingError(
                f"Extractor {self.extractor.id} makes features of length "
                f"{self.extractor.dimensions}, but found features of length {dimensions}: give "
                "the extractor that made them."
            )
        self._check_bands()
        self._check_features(features)

    def _check_bands(self) -> None:
        empty: list[int] = []
        for start, rows in blocks(self.rows):
            seen = np.isfinite(rows.reshape(len(rows), self.shape[0], -1)).any(axis=2).all(axis=1)
            empty += (start + np.flatnonzero(~seen)).tolist()
        if empty:
            raise TrainingError(
                f"{len(empty)} of {self.rows.shape[0]} tiles hold no data in some band, the first "
                f"in row {empty[0]}: leave them out of training."
            )

    def _check_features(self, features: Rows) -> None:
        n_tiles = features.shape[0]
        rows = np.linspace(0, n_tiles - 1, min(COMPARED_TILES, n_tiles)).astype(np.int64)
        tiles = np.concatenate([self.rows[row : row + 1] for row in rows.tolist()])
        given = np.concatenate([features[row : row + 1] for row in rows.tolist()])
        given = given.astype(np.float64)
        computed = self.extractor(tiles.reshape(-1, *self.shape).astype(np.float32))
        spread = np.sqrt(np.square(given - given.mean(axis=0)).sum(axis=1).mean())
        allowed = spread / 2 + ROUNDING * np.linalg.norm(given, axis=1)
        other = rows[np.linalg.norm(computed - given, axis=1) > allowed]
        if other.size:
            raise TrainingError(
                f"Extractor {self.extractor.id} makes other features of the pixels than those "
                f"given, first in row {other[0]} of {n_tiles}: give pixels and features of the "
                "same tiles in the same order, and the extractor that made the features."
            )


class PixelBackbone(nn.Module):
    """From pixels to scaled features, with gradients.

    While training, tiles are turned and mirrored at random: the ground has no upper side.
    """

    mean: Tensor
    projection: Tensor | None

    def __init__(self, pixels: TilePixels, scaling: FeatureScaling, *, frozen: bool) -> None:
        super().__init__()
        self._shape = pixels.shape
        self.network = pixels.extractor.trainable().requires_grad_(not frozen)
        projection = scaling.projection
        self.register_buffer("mean", torch.from_numpy(scaling.mean))
        self.register_buffer(
            "projection", None if projection is None else torch.from_numpy(projection)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Scaled features, float (n, dimensions), of pixels (n, bands * y * x)."""
        tiles = rows.view(-1, *self._shape)
        if self.training:
            tiles = _turned(tiles)
        features = self.network(tiles).float() - self.mean
        if self.projection is not None:
            # Whitening raises small differences, which half precision would round away.
            with torch.autocast(features.device.type, enabled=False):
                features = features @ self.projection
        return nn.functional.normalize(features, dim=1) * features.shape[1] ** 0.5

    def train(self, mode: bool = True) -> PixelBackbone:
        """Only turns tiles while training: the network keeps its normalisation's statistics."""
        super().train(mode)
        self.network.eval()
        return self


def _turned(tiles: Tensor) -> Tensor:
    quarter_turns, mirrored = (int(torch.randint(n, ())) for n in (4, 2))
    tiles = tiles.rot90(quarter_turns, (-2, -1)) if tiles.shape[-1] == tiles.shape[-2] else tiles
    return tiles.flip(-1) if mirrored else tiles
