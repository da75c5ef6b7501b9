"""What the training parameters mean for the packages below."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.labels import load_labels
from data_catalog.land_cover import land_cover_collection
from data_catalog.sensors import get_sensor
from data_catalog.training import known_tiles
from flows.bands import bands_for
from flows.parameters import PSEUDO, LabelParameters, TrainParameters
from rshash.ahcl import AhclSettings
from rshash.errors import FeatureError, LabelError
from rshash.features import Extractor, make_extractor
from rshash.labels import TileLabels
from rshash.mrhash_settings import MrHashSettings

TIMM_BANDS = ("red", "green", "blue")


def training_sensors(parameters: TrainParameters) -> list[str]:
    """The sensors that training reads, the primary one first."""
    return parameters.sensors if parameters.method == "mrhash" else parameters.sensors[:1]


def extractors_for(parameters: TrainParameters) -> dict[str, Extractor]:
    """The feature extractors that the parameters ask for, by sensor ID.

    Raises:
        FeatureError: There are no such weights, or they do not fit.
        SensorError: A sensor lacks a band that its extractor reads.
    """
    return {sensor: extractor_for(parameters, sensor) for sensor in training_sensors(parameters)}


def extractor_for(parameters: TrainParameters, sensor: str) -> Extractor:
    """The feature extractor of one sensor; raises as `extractors_for` does."""
    spec = _extractor_spec(parameters, sensor)
    try:
        return make_extractor(spec)
    except FeatureError as error:
        raise FeatureError(f"No feature extractor for {sensor}: {error}") from error


def settings_for(
    parameters: TrainParameters, extractor: Extractor, n_tiles: int
) -> MrHashSettings | AhclSettings:
    """The settings that the parameters ask for and the primary extractor wants, for n tiles."""
    bits, seed, components = parameters.bits, parameters.seed, extractor.components
    if parameters.method == "ahcl":
        if parameters.preset == "paper":
            return AhclSettings.paper(bits, n_tiles=n_tiles, seed=seed, components=components)
        return AhclSettings(bits=bits, seed=seed, components=components)
    make = MrHashSettings.paper if parameters.preset == "paper" else MrHashSettings
    given: dict[str, Any] = {}
    if parameters.clusters is not None:
        given = {"clusters": parameters.clusters}
    settings = make(bits=bits, seed=seed, components=components, **given)
    return replace(settings, patience=parameters.patience)


def labels_for(
    catalogue: Catalogue, parameters: LabelParameters, sensor: str, tile_size: int
) -> TileLabels | None:
    """The labels that the parameters ask for, of tiles that a sensor was asked for.

    Raises:
        LabelError: There are no such labels, or they are no good.
    """
    if parameters.labels is None:
        return None
    tiles = known_tiles(catalogue, sensor, tile_size)
    return load_labels(
        catalogue, label_source(catalogue, parameters), tiles, parameters.minimum_share
    )


def label_source(catalogue: Catalogue, parameters: LabelParameters) -> str:
    """The table or the published collection that the parameters mean.

    Raises:
        LabelError: Pseudo-labels are asked for, and none are published.
    """
    if parameters.land_cover:
        return land_cover_collection(parameters.land_cover)
    if parameters.labels != PSEUDO:
        return str(parameters.labels)
    published = set(catalogue.collections())
    for model_id in reversed(catalogue.item_ids(MODELS)):
        if f"labels-{model_id}" in published:
            return f"labels-{model_id}"
    raise LabelError(
        f"No pseudo-labels are published in {catalogue.store}: they come with a model of MrHash, "
        "so learn one first with `rshash train`."
    )


def _extractor_spec(parameters: TrainParameters, sensor: str) -> dict[str, Any]:
    if parameters.extractor == "mosaiks":
        return {"kind": "mosaiks", "bands": list(parameters.bands_of(sensor))}
    if parameters.extractor == "torchgeo":
        weights = str(parameters.of_sensor("weights", sensor))
        return {
            "kind": "torchgeo",
            "weights": weights,
            **bands_for(weights, parameters, sensor),
            "checkpoint": parameters.of_sensor("checkpoint", sensor),
        }
    return {
        "kind": "timm",
        "bands": list(get_sensor(sensor).check_bands(TIMM_BANDS)),
        "architecture": parameters.timm_architecture,
        "checkpoint": parameters.of_sensor("checkpoint", sensor),
        "options": parameters.timm_options,
        "reflectance_range": [0.0, parameters.reflectance_ceiling],
    }
