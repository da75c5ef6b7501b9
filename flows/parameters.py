"""What a user can set: one definition for the command line's options and the Prefect UI's forms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cyclopts import Parameter
from pydantic import AfterValidator, Field, model_validator

from data_catalog.areas import parse_area, parse_period
from data_catalog.errors import SensorError
from data_catalog.grid import DEFAULT_TILE_SIZE, check_tile_size
from data_catalog.sensors import get_sensor, known_sensors
from flows.parameter_base import CatalogParameters, Parameters
from flows.quality_parameters import DriftParameters, QualityParameters
from flows.runner_parameters import RunnerParameters
from flows.saved import resolved
from rshash.codes import check_bits
from rshash.errors import FeatureError, LabelError, TrainingError

LAND_COVER = "land-cover:"
"""Before the collection that land cover is to be read from."""

ALL_BANDS = "all"
"""In place of the names of all bands that a sensor has."""

PSEUDO = "pseudo"
"""The labels of the newest MrHash model."""

_PERIOD = r"^(P\d+[DW]$|\d{4}|\.\./)"
"""What a form takes for a period: it shows this to whoever writes another, so it is short."""


def _resolved_area(area: str) -> str:
    return resolved(area, "area")


def _resolved_source(source: str) -> str:
    return resolved(source, "source")


def _checked_period(period: str) -> str:
    parse_period(period)
    return period


def _checked_sensors(sensors: list[str]) -> list[str]:
    for sensor in sensors:
        get_sensor(sensor)
    return list(dict.fromkeys(sensors))


def _of_known_sensors(schema: dict[str, Any]) -> None:
    schema["items"]["enum"] = [sensor.id for sensor in known_sensors()]


def _checked_labels(labels: str | None) -> str | None:
    if labels == LAND_COVER:
        raise LabelError(
            f"--labels {labels} names no collection of land cover: write one behind it, such as "
            f"{LAND_COVER}esa-worldcover."
        )
    return labels


class SensorParameters(CatalogParameters):
    """Which sensors take part."""

    sensors: Annotated[list[str], AfterValidator(_checked_sensors)] = Field(
        ["sentinel-2-l2a", "landsat-c2-l2"],
        min_length=1,
        json_schema_extra=_of_known_sensors,
        title="Sensors",
        description="Some of sentinel-2-l2a, sentinel-2-c1-l2a, landsat-c2-l2, sentinel-1-rtc and "
        "your own. The first is the primary one, which codes are made from; the others help to "
        "learn them.",
    )
    tile_size: Annotated[int, AfterValidator(check_tile_size)] = Field(
        DEFAULT_TILE_SIZE,
        json_schema_extra={"minimum": 60, "multipleOf": 60},
        title="Tile size (m)",
        description="Metres on a side: a multiple of 60.",
    )
    bands: list[str] = Field(
        default_factory=list,
        title="Bands",
        description="Bands that are fetched, and that random features are made from, such as red "
        "nir, or all; every sensor takes those that it has. Without it: their default bands. "
        "torchgeo's weights read their own, timm red, green and blue: fetch these.",
    )

    @model_validator(mode="after")
    def _bands_are_of_the_sensors(self) -> Self:
        for sensor in self.sensors:
            self.bands_of(sensor)
        return self

    def bands_of(self, sensor: str) -> tuple[str, ...]:
        """The bands asked for that one of the sensors has; its default bands without any.

        Raises:
            SensorError: None of the sensors has such a band, or this one has none of them.
        """
        known = get_sensor(sensor)
        if not self.bands:
            return known.default_bands
        if self.bands == [ALL_BANDS]:
            return tuple(known.bands)
        others = {band for other in self.sensors for band in get_sensor(other).bands}
        names = [band for band in self.bands if band in known.bands or band not in others]
        if not names:
            raise SensorError(
                f"Sensor {sensor} has none of the bands {', '.join(self.bands)}: name some of "
                f"{', '.join(known.bands)} too, or leave it out of --sensors."
            )
        return known.check_bands(names)


class SourceParameters(Parameters):
    """Where scenes and maps come from."""

    source: Annotated[str, AfterValidator(_resolved_source)] = Field(
        "planetary-computer",
        title="Source catalogue",
        description="planetary-computer, earth-search, a STAC API's address, "
        "a static catalogue's path or address, or saved:NAME.",
    )


class IngestParameters(SourceParameters, SensorParameters, RunnerParameters):
    """Which imagery becomes tiles."""

    area: Annotated[str, AfterValidator(_resolved_area), Parameter(allow_leading_hyphen=True)] = (
        Field(
            json_schema_extra={"pattern": r"\S"},
            title="Area",
            description="'west,south,east,north' in degrees, points 'lon,lat lon,lat', "
            "GeoJSON text, saved:NAME, or a file's path: GeoJSON, GeoParquet, or CSV with lon and "
            "lat, geometry (WKT) or tile_id.",
        )
    )
    period: Annotated[str, AfterValidator(_checked_period)] = Field(
        "P30D",
        json_schema_extra={"pattern": _PERIOD},
        title="Period",
        description="'2024-06-01/2024-08-31', or a duration up to now such as P30D (30 days).",
    )
    minimum_clear: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        title="Minimum clear fraction",
        description="A tile needs this share of clear pixels to be valid.",
    )

    composite: Literal["best", "median"] = Field(
        "best",
        title="Composite",
        description="best: a tile is of the pass that saw most of it clear; median: a pixel is the "
        "median of all passes in the period that saw it clear.",
    )

    @model_validator(mode="after")
    def _area_is_of_tiles_of_this_size(self) -> Self:
        parse_area(self.area, self.tile_size)
        return self


class IngestFlowParameters(IngestParameters):
    """Which imagery becomes tiles, or would."""

    plan: bool = Field(
        False, title="Plan only", description="Tell what would be read, and read nothing."
    )


class MethodParameters(Parameters):
    """How codes are learned."""

    box_title = "Learning"
    box_key = "learning"

    method: Literal["mrhash", "ahcl"] = Field(
        "mrhash",
        title="Method",
        description="mrhash learns without labels, from all sensors; "
        "ahcl learns from labels, from the primary sensor.",
    )
    bits: Annotated[int, AfterValidator(check_bits)] = Field(
        64,
        json_schema_extra={"minimum": 8, "maximum": 1024, "multipleOf": 8},
        title="Bits",
        description="Length of a code: a multiple of 8 up to 1024.",
    )
    preset: Literal["default", "paper"] = Field(
        "default",
        title="Preset",
        description="default: the settings that won in our measurements; paper: those that were "
        "published with the method.",
    )
    clusters: int | None = Field(
        None,
        ge=2,
        title="Clusters",
        description="Number of pseudo-labels of mrhash (K), which needs 2 K tiles. Without it: a "
        "sixth of the tiles, at most 128; 64 with the preset paper.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        title="Patience",
        description="Hold out tiles, and stop mrhash after this many epochs in which their codes "
        "find their neighbours no better. Without it: all epochs.",
    )
    from_pixels: bool = Field(
        False,
        title="From pixels",
        description="Let mrhash tune the primary sensor's extractor too: slower, wants a GPU.",
    )
    processes: int = Field(
        1, ge=1, title="Processes", description="Processes that train together, a GPU for each."
    )
    seed: int = Field(0, ge=0, title="Seed", description="The same seed gives the same model.")


class LabelParameters(SourceParameters):
    """Labels of tiles: what ahcl learns from, and what codes are evaluated by."""

    box_title = "Labels"
    box_key = "labelling"

    labels: Annotated[str | None, AfterValidator(_checked_labels)] = Field(
        None,
        title="Labels",
        description="A table (Parquet or CSV); a published collection, such as "
        "land-cover-esa-worldcover; pseudo: the newest MrHash model's; or "
        "land-cover:COLLECTION, such as land-cover:esa-worldcover, read from the source catalogue.",
    )
    minimum_share: float = Field(
        0.2,
        gt=0.0,
        le=1.0,
        title="Minimum share",
        description="Share of a tile, or probability, from which a class counts.",
    )

    @property
    def land_cover(self) -> str | None:
        """The collection that land cover is to be read from, if any."""
        if self.labels is None or not self.labels.startswith(LAND_COVER):
            return None
        return self.labels.removeprefix(LAND_COVER)


class ExtractorParameters(Parameters):
    """What turns tiles into features."""

    box_title = "Features"
    box_key = "features"

    extractor: Literal["mosaiks", "timm", "torchgeo"] = Field(
        "mosaiks",
        title="Feature extractor",
        description="mosaiks: random convolutional features, nothing to download; "
        "timm: an architecture with a checkpoint file; torchgeo: weights by their name.",
    )
    weights: list[str] = Field(
        default_factory=list,
        title="torchgeo weights",
        description="For example ResNet50_Weights.SENTINEL2_ALL_MOCO: one name for all sensors, or "
        "one for each in their order. Tiles must have been fetched with the bands that they read "
        "(--bands all); where they read cirrus, which corrected products lack, they are given 0.",
    )
    checkpoint: list[str] = Field(
        default_factory=list,
        title="Checkpoint",
        description="Path of a weights file on the worker. timm needs one; torchgeo's weights are "
        "downloaded without. One for all sensors, or one for each in their order.",
    )
    timm_architecture: str | None = Field(
        None, title="timm architecture", description="Such as mobilenetv1_100; reads RGB."
    )
    timm_options: dict[str, Any] = Field(
        default_factory=dict,
        title="timm options",
        description='Further arguments of the architecture as JSON: \'{"pad_type": "same"}\'.',
    )
    reflectance_ceiling: float = Field(
        0.3,
        gt=0.0,
        le=1.0,
        title="Reflectance ceiling",
        description="The reflectance that a timm network sees as white.",
    )


class TrainParameters(MethodParameters, LabelParameters, ExtractorParameters, SensorParameters):
    """How a hashing model is learned."""

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        if self.method == "ahcl" and self.labels is None:
            raise LabelError(
                "--method ahcl learns from labels: name some, such as --labels labels.csv, "
                "--labels pseudo, or --labels land-cover:esa-worldcover."
            )
        others = {
            "mrhash": ("labels", "minimum_share"),
            "ahcl": ("clusters", "patience", "from_pixels"),
        }
        self._refuse(others[self.method], f"--method {self.method}")
        if self.from_pixels and self.processes > 1:
            raise TrainingError("--from-pixels trains in one process: leave --processes out.")
        return self

    @model_validator(mode="after")
    def _fits_its_extractor(self) -> Self:
        others = {
            "mosaiks": ("weights", "checkpoint", "timm_architecture", "timm_options"),
            "timm": ("weights",),
            "torchgeo": ("timm_architecture", "timm_options"),
        }
        self._refuse(others[self.extractor], f"--extractor {self.extractor}")
        if self.extractor == "timm" and not (self.timm_architecture and self.checkpoint):
            raise FeatureError(
                "The timm extractor needs an architecture and a checkpoint: give both, "
                "such as --timm-architecture mobilenetv1_100 --checkpoint FILE.safetensors."
            )
        if self.extractor == "torchgeo" and not self.weights:
            raise FeatureError(
                "The torchgeo extractor needs weights: name some, "
                "such as --weights ResNet50_Weights.SENTINEL2_RGB_MOCO."
            )
        for name in ("weights", "checkpoint"):
            if len(getattr(self, name)) not in (0, 1, len(self.sensors)):
                raise FeatureError(
                    f"--{name} takes one for all sensors, or one for each of "
                    f"{', '.join(self.sensors)}, but found {len(getattr(self, name))}."
                )
        for file in self.checkpoint:
            if not Path(file).is_file():
                raise FeatureError(f"--checkpoint {file}: there is no such file.")
        return self

    def of_sensor(self, name: Literal["weights", "checkpoint"], sensor: str) -> str | None:
        """The weights or the checkpoint of one of the sensors, if any are given."""
        values: list[str] = getattr(self, name)
        return values[self.sensors.index(sensor) % len(values)] if values else None

    def _refuse(self, names: tuple[str, ...], choice: str) -> None:
        fields = type(self).model_fields
        for name in names:
            if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                raise TrainingError(
                    f"--{name.replace('_', '-')} is not for {choice}: leave it out."
                )


class RehashParameters(QualityParameters, CatalogParameters, RunnerParameters):
    """Which model makes the codes, and how good they have to be."""

    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the model in use."
    )


class RehashFlowParameters(RehashParameters):
    """Which codes are made, or published after all."""

    approve: bool = Field(
        False,
        title="Approve",
        description="Publish the codes that the quality gate kept back last, and make none.",
    )


class NightlyParameters(IngestParameters, TrainParameters, DriftParameters, RehashParameters):
    """A night: new imagery becomes tiles, what changed gets new codes; a first one also trains."""


class EvaluateParameters(LabelParameters, CatalogParameters):
    """Which codes are evaluated, and by what."""

    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the model in use."
    )
    against: str | None = Field(
        None,
        title="Against",
        description="ID of a model to compare with, side by side, on the same tiles. Without it: "
        "the model in use, where another one is evaluated.",
    )
    output: Path | None = Field(
        None,
        title="Output",
        description="Folder of the report. Without it: evaluation-MODEL, here.",
    )
