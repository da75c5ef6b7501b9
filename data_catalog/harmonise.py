"""A scene's numbers in the one convention in which tiles are stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_catalog.sensors import SceneBand, Sensor

LARGEST = 65535


def harmonise(numbers: NDArray[np.float32], band: SceneBand, sensor: Sensor) -> NDArray[np.uint16]:
    """A scene's numbers as the sensor's tiles store them.

    Args:
        numbers: float32, as the asset has them.
        band: Their scale, offset and nodata.
        sensor: Says what is stored: physical = stored x ``stored.scale`` + ``stored.offset``.

    Returns:
        uint16 of the same shape: 0 where not observed, at least 1 elsewhere.
    """
    stored = sensor.stored
    scale = round(band.scale / stored.scale, 9)
    offset = round((band.offset - stored.offset) / stored.scale, 9)
    scaled = np.clip(np.rint(numbers * scale + offset), 1.0, LARGEST)
    unobserved = np.isnan(numbers)
    if band.nodata is not None:
        unobserved |= numbers == band.nodata
    scaled[unobserved] = 0.0
    return scaled.astype(np.uint16)
