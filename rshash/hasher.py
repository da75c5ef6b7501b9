"""From features to codes: what every trained head does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from rshash.codes import Words, pack
from rshash.errors import ModelError
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
            FeatureError: The features have another length than those trained on.
            ModelError: Some rows hold NaN.
        """
        missing = np.flatnonzero(np.isnan(features).any(axis=1))
        if missing.size:
            raise ModelError(
                f"{missing.size} of {len(features)} tiles have no features, the first in row "
                f"{missing[0]}: leave out tiles without data before making codes."
            )
        with torch.inference_mode():
            scaled = torch.from_numpy(self.scaling.apply(features))
            parts = [self.head(rows) for rows in scaled.split(_BATCH)]
        return torch.cat(parts).numpy()

    def encode_features(self, features: Features) -> Words:
        """Codes, uint64 (n, words), of unscaled features (n, d); raises as `outputs` does."""
        return pack(self.outputs(features))
