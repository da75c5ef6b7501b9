"""From features to codes: what every trained head does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rshash.codes import Words, pack
from rshash.errors import FeatureError
from rshash.features import Features

if TYPE_CHECKING:
    from rshash.head import HashHead
    from rshash.scaling import FeatureScaling

_BATCH = 8192


class FeatureHasher:
    """Makes codes of features, with a trained head and the scaling that belongs to it."""

    head: HashHead
    scaling: FeatureScaling

    def outputs(self, features: Features) -> NDArray[np.float32]:
        """Network outputs u in [-1, 1], float32 (n, bits), of unscaled features (n, d).

        Raises:
            FeatureError: The features are not (n, d) of the length trained on, or not finite.
        """
        self.scaling.check_shape(features)
        missing = np.flatnonzero(np.isnan(features).any(axis=1))
        if missing.size:
            raise FeatureError(
                f"{missing.size} of {len(features)} tiles have no features, the first in row "
                f"{missing[0]}: a row with NaN is a tile that lacks data, so leave it out before "
                "making codes."
            )
        infinite = np.flatnonzero(np.isinf(features).any(axis=1))
        if infinite.size:
            raise FeatureError(
                f"Features are finite, but {infinite.size} of {len(features)} tiles have infinite "
                f"ones, the first in row {infinite[0]}: compute them again."
            )
        with torch.inference_mode():
            scaled = torch.from_numpy(self.scaling.apply(features))
            parts = [self.head(rows) for rows in scaled.split(_BATCH)]
        return torch.cat(parts).numpy()

    def encode_features(self, features: Features) -> Words:
        """Codes, uint64 (n, words), of unscaled features (n, d); raises as `outputs` does."""
        return pack(self.outputs(features))
