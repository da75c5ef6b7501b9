"""Codes of images never seen before: a file's pixels through a published model's own network."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.models import load_model
from data_catalog.sensors import Sensor, get_sensor
from rshash.codes import Words
from rshash.model import Model

DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
}
"""By a file's first bytes: other formats may refer to further files."""

MODELS_IN_MEMORY = 2

_load_model = lru_cache(MODELS_IN_MEMORY)(load_model)


def code_of_image(catalogue: Catalogue, model_id: str, path: str | Path) -> Words:
    """The code that a model gives an image, by its own extractor and head.

    Args:
        catalogue: Holds the model.
        model_id: The model.
        path: A GeoTIFF or a 16-bit PNG, as large as the model's tiles and with its bands in their
            order. Whole numbers mean what the sensor's stored numbers mean (reflectance x 10,000
            for Sentinel-2 and Landsat) and 0 is not observed; fractions are in the sensor's unit
            itself and NaN is not observed.

    Returns:
        uint64 ``(1, words)``.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The file is no image, or has another size, number of bands or type.
    """
    model = _load_model(catalogue, model_id)
    pixels = _read(Path(path), model)
    features = model.features(pixels[None])
    if not np.isfinite(features).all():
        raise QueryError(
            f"{path} has a band without any observed pixel: model {model_id} needs all of "
            f"{', '.join(model.bands)}."
        )
    return model.encode_features(features)


def _read(path: Path, model: Model) -> NDArray[np.float32]:
    sensor = get_sensor(model.primary_sensor)
    if not path.is_file():
        raise QueryError(f"There is no image file {path}.")
    with path.open("rb") as file:
        driver = DRIVERS.get(file.read(4))
    if driver is None:
        raise QueryError(f"{path} is no image that can be read: give a GeoTIFF or a 16-bit PNG.")
    try:
        with rasterio.open(path, driver=driver) as image:
            # Before anything is decoded: a small file may hold a huge image.
            _check(path, image, model, sensor)
            numbers = image.read()
            unseen = np.isnan(numbers) if numbers.dtype.kind == "f" else numbers == 0
            if image.nodata is not None:
                unseen |= numbers == image.nodata
    except RasterioError as error:
        raise QueryError(
            f"{path} cannot be read as an image ({error}): it may be cut off."
        ) from None
    pixels = numbers.astype(np.float32)
    if numbers.dtype.kind != "f":
        pixels = pixels * np.float32(sensor.stored.scale) + np.float32(sensor.stored.offset)
    pixels[unseen] = np.nan
    return pixels


def _check(path: Path, image: rasterio.DatasetReader, model: Model, sensor: Sensor) -> None:
    side = model.tile_size // sensor.resolution
    if (image.width, image.height) != (side, side):
        raise QueryError(
            f"{path} has {image.width} x {image.height} pixels, but model {model.model_id} reads "
            f"tiles of {side} x {side} pixels ({model.tile_size} m at {sensor.resolution} m): cut "
            "or resample it to that."
        )
    if image.count != len(model.bands):
        raise QueryError(
            f"{path} has {image.count} bands, but model {model.model_id} reads "
            f"{len(model.bands)} of {sensor.id}: {', '.join(model.bands)}, in this order."
        )
    types = set(image.dtypes)
    if not types <= {"uint16", "int16", "float32", "float64"}:
        raise QueryError(
            f"{path} holds numbers of type {', '.join(sorted(types))}: expected "
            f"{sensor.stored.quantity} as 16-bit numbers (times {sensor.stored.scale:g}) or as "
            "fractions; a picture for the screen does not tell it."
        )
