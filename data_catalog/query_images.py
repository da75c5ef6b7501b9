"""Codes of images never seen before: a file's pixels through a published model's own network."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.sensors import Sensor, get_sensor
from rshash.codes import Words

if TYPE_CHECKING:
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

PLAUSIBLE_REFLECTANCE = -0.2, 2.0
"""Of a band's median: beyond it the numbers mean something else."""


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
        QueryError: The file is no image, has another size, number of bands or type, or holds no
            plausible reflectance.
    """
    path = Path(path)
    driver = image_driver(path)
    model = _load_model(catalogue, model_id)
    pixels = _read(path, driver, model)
    features = model.features(pixels[None])
    if not np.isfinite(features).all():
        raise QueryError(
            f"{path} has a band without any observed pixel: model {model_id} needs all of "
            f"{', '.join(model.bands)}."
        )
    return model.encode_features(features)


def image_driver(path: Path) -> str:
    """The format of an image file, for rasterio.

    Raises:
        QueryError: There is no such file, or it is of no format that can be read.
    """
    if not path.is_file():
        raise QueryError(f"There is no image file {path}.")
    with path.open("rb") as file:
        driver = DRIVERS.get(file.read(4))
    if driver is None:
        raise QueryError(f"{path} is no image that can be read: give a GeoTIFF or a 16-bit PNG.")
    return driver


@lru_cache(MODELS_IN_MEMORY)
def _load_model(catalogue: Catalogue, model_id: str) -> Model:
    # Here: it imports torch, and what is wrong with a request is to be told before.
    from data_catalog.models import load_model

    return load_model(catalogue, model_id)


def _read(path: Path, driver: str, model: Model) -> NDArray[np.float32]:
    sensor = get_sensor(model.primary_sensor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            image = rasterio.open(path, driver=driver)
        with image:
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
    if sensor.stored.quantity == "reflectance":
        _check_reflectance(path, pixels, model)
    return pixels


def _check_reflectance(path: Path, pixels: NDArray[np.float32], model: Model) -> None:
    low, high = PLAUSIBLE_REFLECTANCE
    for band, numbers in zip(model.bands, pixels, strict=True):
        seen = numbers[~np.isnan(numbers)]
        if seen.size and not low <= (median := float(np.median(seen))) <= high:
            raise QueryError(
                f"{path} has a median reflectance of {median:g} in band {band}: expected {low:g} "
                f"to {high:g}. Fractions are reflectance itself (divide by 10,000 what is "
                "reflectance x 10,000); 16-bit numbers are reflectance x 10,000."
            )


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
