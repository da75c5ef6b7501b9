"""A fixed choice among tiles, so that figures of two nights, or of two models, compare."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PROBE_TILES = 500


def probe_rows(tile_ids: pd.Series[str], count: int = PROBE_TILES) -> NDArray[np.intp]:
    """Rows of the tiles whose IDs have the smallest hashes, in their order; all of few tiles.

    The choice is spread evenly, and of more tiles it is mostly the same.
    """
    hashes = pd.util.hash_array(tile_ids.to_numpy(object))
    return np.sort(np.argsort(hashes, kind="stable")[:count])
