"""The scaled features of the same tiles from several sources, read as training needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash.scaling import FeatureScaling
from rshash.streaming import BLOCK_ROWS, Rows, blocks


class ScaledSources:
    """Sources with their scalings, the primary one first.

    Attributes:
        arrays: Unscaled features, float (n, d_s) for each source.
        scalings: What scales them.
        n_tiles: The number of tiles.
    """

    def __init__(self, arrays: Sequence[Rows], scalings: Sequence[FeatureScaling]) -> None:
        self.arrays = list(arrays)
        self.scalings = list(scalings)
        self.n_tiles = arrays[0].shape[0]

    @property
    def dimensions(self) -> list[int]:
        """Lengths of the scaled vectors."""
        return [scaling.dimensions for scaling in self.scalings]

    @property
    def block_count(self) -> int:
        """The number of `blocks`."""
        return -(-self.n_tiles // BLOCK_ROWS)

    def blocks(self, device: torch.device) -> Iterator[list[Tensor]]:
        """Consecutive tiles' scaled features, float32 (m, d_s) for each source."""
        for parts in zip(*(blocks(a, BLOCK_ROWS) for a in self.arrays), strict=True):
            yield [
                torch.as_tensor(scaling.apply(rows), device=device)
                for scaling, (_, rows) in zip(self.scalings, parts, strict=True)
            ]

    def take(self, rows: NDArray[np.int64], device: torch.device) -> list[Tensor]:
        """Scaled features of chosen tiles, float32 (len(rows), d_s) for each source."""
        return [
            torch.as_tensor(scaling.apply(take_rows(array, rows)), device=device)
            for scaling, array in zip(self.scalings, self.arrays, strict=True)
        ]


def take_rows(array: Rows, rows: NDArray[np.int64]) -> NDArray[np.floating]:
    """Chosen rows of an array, in the order given, read block by block."""
    found = np.empty((len(rows), array.shape[1]), array[:1].dtype)
    for start, block in blocks(array):
        inside = np.flatnonzero((rows >= start) & (rows < start + len(block)))
        found[inside] = block[rows[inside] - start]
    return found
