"""What the training parameters mean for the hash learning package."""

from __future__ import annotations

from typing import Any

from data_catalog.sensors import get_sensor
from flows.parameters import TrainParameters
from rshash.features import Extractor, make_extractor
from rshash.mrhash_settings import MrHashSettings

TIMM_BANDS = ("red", "green", "blue")


def mrhash_settings(parameters: TrainParameters, extractor: Extractor) -> MrHashSettings:
    """The settings of MrHash that the parameters ask for and the primary extractor wants."""
    return MrHashSettings(
        bits=parameters.bits,
        clusters=parameters.clusters,
        seed=parameters.seed,
        components=extractor.components,
    )


def extractor_for(parameters: TrainParameters, sensor: str) -> Extractor:
    """The feature extractor that the parameters ask for, for one sensor's bands.

    Raises:
        FeatureError: There is no such architecture, or its checkpoint does not fit.
        SensorError: The sensor lacks a band that the extractor reads.
    """
    return make_extractor(_extractor_spec(parameters, sensor))


def _extractor_spec(parameters: TrainParameters, sensor: str) -> dict[str, Any]:
    if parameters.extractor == "mosaiks":
        return {"kind": "mosaiks", "bands": list(get_sensor(sensor).default_bands)}
    return {
        "kind": "timm",
        "bands": list(get_sensor(sensor).check_bands(TIMM_BANDS)),
        "architecture": parameters.timm_architecture,
        "checkpoint": parameters.timm_checkpoint,
        "options": parameters.timm_options,
        "reflectance_range": [0.0, parameters.reflectance_ceiling],
    }
