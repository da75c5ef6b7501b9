"""A scene's numbers in the one convention in which tiles are stored."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_catalog.sensors import SceneBand, Sensor, get_sensor

LARGEST = 65535
SMALLEST_POWER = np.float32(1e-30)


def harmonise(numbers: NDArray[Any], band: SceneBand, sensor: Sensor) -> NDArray[np.uint16]:
    """A scene's numbers as the sensor's tiles store them.

    Args:
        numbers: As the asset has them.
        band: Their scale, offset and nodata.
        sensor: Says what is stored: physical = stored x ``stored.scale`` + ``stored.offset``.

    Returns:
        uint16 of the same shape: 0 where not observed, at least 1 elsewhere.
    """
    if numbers.dtype in (np.uint8, np.uint16):
        # One look at a table in place of ten passes over the pixels.
        return _table(band.scale, band.offset, band.nodata, sensor.id)[numbers]
    return _computed(numbers.astype(np.float32, copy=False), band, sensor)


@lru_cache(maxsize=256)
def _table(scale: float, offset: float, nodata: float | None, sensor_id: str) -> NDArray[np.uint16]:
    band = SceneBand("", "", scale, offset, nodata)
    return _computed(np.arange(LARGEST + 1, dtype=np.float32), band, get_sensor(sensor_id))


def _computed(numbers: NDArray[np.float32], band: SceneBand, sensor: Sensor) -> NDArray[np.uint16]:
    stored = sensor.stored
    if sensor.decibels:
        power = numbers * np.float32(band.scale) + np.float32(band.offset)
        # Where nothing came back, noise removal leaves zero or less: the floor, not "not observed".
        measured = 10.0 * np.log10(np.maximum(power, SMALLEST_POWER))
        scale, offset = 1.0 / stored.scale, -stored.offset / stored.scale
    else:
        measured = numbers
        scale, offset = band.scale / stored.scale, (band.offset - stored.offset) / stored.scale
    scaled = np.rint(measured * round(scale, 9) + round(offset, 9))
    scaled = np.clip(scaled, 1.0, LARGEST)
    scaled[_unobserved(numbers, band.nodata)] = 0.0
    return scaled.astype(np.uint16)


def _unobserved(numbers: NDArray[np.float32], nodata: float | None) -> NDArray[np.bool_]:
    unobserved = np.isnan(numbers)
    return unobserved if nodata is None else unobserved | (numbers == nodata)
