"""Tiles as rows of pixels, for learning from them: read from their segments, never all at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.grid import parse_tile_id
from data_catalog.observations import read_tiles
from data_catalog.sensors import get_sensor


class PixelRows:
    """Observations as rows of pixels, float32 (n, bands * y * x), NaN where not observed.

    They are in the unit of the sensor's ``stored``, such as reflectance.

    Attributes:
        tile_shape: (bands, y, x) of a tile.
        shape: (n, bands * y * x).
    """

    def __init__(
        self, catalogue: Catalogue, sensor: str, observations: pd.DataFrame, bands: Sequence[str]
    ) -> None:
        """Describes the rows and reads nothing.

        Args:
            catalogue: Holds the segments.
            sensor: Sensor ID.
            observations: At least one, as `read_tiles` takes them.
            bands: Canonical names.
        """
        self._catalogue, self._sensor, self._bands = catalogue, sensor, tuple(bands)
        self._observations = observations[["tile_id", "segment_id", "row"]]
        size = parse_tile_id(observations["tile_id"].iloc[0]).size
        side = size // get_sensor(sensor).resolution
        self.tile_shape = (len(self._bands), side, side)
        self.shape = (len(observations), len(self._bands) * side * side)

    def __getitem__(self, rows: slice, /) -> NDArray[np.float32]:
        batch = self._observations.iloc[rows]
        tiles = read_tiles(self._catalogue, self._sensor, batch, self._bands)
        return tiles.reshape(len(batch), self.shape[1])
