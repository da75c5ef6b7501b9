"""From features to codes: what every trained head does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rshash.codes import Words, pack, word_count
from rshash.errors import FeatureError
from rshash.streaming import Rows, blocks

if TYPE_CHECKING:
    from rshash.head import HashHead
    from rshash.scaling import FeatureScaling


class FeatureHasher:
    """Makes codes of features, with a trained head and the scaling that belongs to it."""

    head: HashHead
    scaling: FeatureScaling

    def outputs(self, features: Rows) -> NDArray[np.float32]:
        """Network outputs u in [-1, 1], float32 (n, bits), of unscaled features (n, d).

        The features are read block by block, in memory or on disk.

        Raises:
            FeatureError: The features are not (n, d) of the length trained on, or not finite.
        """
        found = np.empty((features.shape[0], self.head.sizes["bits"]), np.float32)
        for rows, outputs in self._outputs(features):
            found[rows] = outputs
        return found

    def encode_features(self, features: Rows) -> Words:
        """Codes, uint64 (n, words), of unscaled features (n, d); reads and raises as `outputs`."""
        found = np.empty((features.shape[0], word_count(self.head.sizes["bits"])), np.uint64)
        for rows, outputs in self._outputs(features):
            found[rows] = pack(outputs)
        return found

    def _outputs(self, features: Rows) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        self._check(features)
        for start, rows in blocks(features):
            with torch.inference_mode():
                outputs = self.head(torch.from_numpy(self.scaling.apply(rows)))
            yield slice(start, start + len(rows)), outputs.numpy()

    def _check(self, features: Rows) -> None:
        self.scaling.check_shape(features)
        missing: list[int] = []
        infinite: list[int] = []
        for start, rows in blocks(features):
            missing += (start + np.flatnonzero(np.isnan(rows).any(axis=1))).tolist()
            infinite += (start + np.flatnonzero(np.isinf(rows).any(axis=1))).tolist()
        if missing:
            raise FeatureError(
                f"{len(missing)} of {features.shape[0]} tiles have no features, the first in row "
                f"{missing[0]}: a row with NaN is a tile that lacks data, so leave it out before "
                "making codes."
            )
        if infinite:
            raise FeatureError(
                f"Features are finite, but {len(infinite)} of {features.shape[0]} tiles have "
                f"infinite ones, the first in row {infinite[0]}: compute them again."
            )
