"""Hashing from pixels: a feature extractor that is fine-tuned while codes are learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rshash.errors import TrainingError
from rshash.features import Extractor
from rshash.scaling import FeatureScaling
from rshash.streaming import Rows


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

    def check(self, n_tiles: int) -> None:
        """Refuses pixels of other tiles, or of another shape than they say.

        Raises:
            TrainingError: They do not fit.
        """
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
