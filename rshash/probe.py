"""A judge of codes that takes no labels, while they are learned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash.codes import pack
from rshash.evaluation import mean_average_precision
from rshash.hashing import Hashing
from rshash.neighbours import joined_directions, nearest
from rshash.pixels import TilePixels
from rshash.sources import ScaledSources, take_rows
from rshash.streaming import POOL_BYTES

QUERIES = 512
TILES = 4096
NEIGHBOURS = 20
_BATCH = 64


class Probe:
    """Tiles held out of the hashing stage, to judge its codes by.

    Their codes should find, among those of other tiles, the tiles that are their neighbours in the
    features of all sources.

    Attributes:
        held_out: Row numbers of the tiles that the stream of the hashing stage leaves out, so that
            no process's share of a batch is empty for their sake.
    """

    def __init__(
        self, sources: ScaledSources, pixels: TilePixels | None, seed: int, device: torch.device
    ) -> None:
        """Draws a tenth of all tiles to hold out, 1 to 512, and up to 4,096 others."""
        self._count = min(QUERIES, max(1, sources.n_tiles // 10))
        # Epochs count from 1 and draw their order likewise.
        rows = np.random.default_rng([seed, 0]).permutation(sources.n_tiles)
        rows = rows[: self._count + TILES]
        self.held_out = np.sort(rows[: self._count])
        features = sources.take(rows, device)
        self._rows, self._pixels, self._device = rows, pixels, device
        self._kept: Tensor | None = None
        if pixels is None:
            self._kept = features[0]
        elif 4 * len(rows) * pixels.rows.shape[1] <= POOL_BYTES:
            self._kept = self._tensor(take_rows(pixels.rows, rows))
        directions = joined_directions(features)
        held_out, others = slice(self._count), slice(self._count, None)
        count = len(rows) - self._count
        _, found = nearest(
            directions.take(held_out), directions.take(others), min(NEIGHBOURS, count)
        )
        # Every held-out tile is a class of its own, to which its neighbours belong.
        self._relevant = np.zeros((count, self._count), np.bool_)
        self._relevant[found.cpu().numpy(), np.arange(self._count)[:, None]] = True

    def judge(self, hashing: Hashing) -> float:
        """Mean average precision with which the held-out tiles' codes find their neighbours."""
        outputs = [hashing.outputs([inputs]) for inputs in self._inputs()]
        codes = pack(torch.cat(outputs).float().cpu().numpy())
        return mean_average_precision(
            codes[: self._count],
            np.eye(self._count, dtype=np.bool_),
            codes[self._count :],
            self._relevant,
        )

    def _inputs(self) -> Iterator[Tensor]:
        """What `Hashing.outputs` takes, batch by batch; pixels are read where they do not fit."""
        if self._kept is not None:
            yield from self._kept.split(_BATCH)
            return
        assert self._pixels is not None
        for rows in np.split(self._rows, range(_BATCH, len(self._rows), _BATCH)):
            pixels = np.concatenate([self._pixels.rows[row : row + 1] for row in rows])
            yield self._tensor(pixels)

    def _tensor(self, pixels: NDArray[np.floating]) -> Tensor:
        # Whatever they were before: the network computes in float32.
        return torch.as_tensor(pixels, dtype=torch.float32, device=self._device)
