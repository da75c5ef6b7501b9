"""What a user can set: one definition for the command line's options and the Prefect UI's forms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from cyclopts import Parameter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from data_catalog.areas import parse_area, parse_period
from data_catalog.grid import DEFAULT_TILE_SIZE, check_tile_size
from data_catalog.sensors import get_sensor
from rshash.codes import check_bits
from rshash.errors import FeatureError

P = TypeVar("P", bound="Parameters")


def _default_catalog() -> str:
    return os.environ.get("RSHASH_CATALOG") or "catalogue"


def _checked_area(area: str) -> str:
    parse_area(area)
    return area


def _checked_period(period: str) -> str:
    parse_period(period)
    return period


def _checked_sensors(sensors: list[str]) -> list[str]:
    for sensor in sensors:
        get_sensor(sensor)
    return list(dict.fromkeys(sensors))


class Parameters(BaseModel):
    """Root of all parameter models."""

    model_config = ConfigDict(extra="forbid")

    def narrowed_to(self, model: type[P]) -> P:
        """The same settings as another model that has a part of the fields."""
        return model.model_validate(self.model_dump(include=set(model.model_fields)))


class CatalogParameters(Parameters):
    """Where the catalogue is."""

    catalog: str = Field(
        default_factory=_default_catalog,
        title="Catalogue",
        description="Folder of the catalogue. Without it: RSHASH_CATALOG, else ./catalogue.",
    )


class SensorParameters(CatalogParameters):
    """Which sensors take part."""

    sensors: Annotated[list[str], AfterValidator(_checked_sensors)] = Field(
        ["sentinel-2-l2a", "landsat-c2-l2"],
        min_length=1,
        title="Sensors",
        description="The first is the primary one, which codes are made from; "
        "the others help to learn them.",
    )
    tile_size: Annotated[int, AfterValidator(check_tile_size)] = Field(
        DEFAULT_TILE_SIZE,
        title="Tile size (m)",
        description="Metres on a side: a multiple of 60.",
    )


class IngestParameters(SensorParameters):
    """Which imagery becomes tiles."""

    area: Annotated[str, AfterValidator(_checked_area), Parameter(allow_leading_hyphen=True)] = (
        Field(
            title="Area",
            description="'west,south,east,north' in degrees, points 'lon,lat lon,lat', "
            "GeoJSON text, or a GeoJSON file's path.",
        )
    )
    source: str = Field(
        "planetary-computer",
        title="Source catalogue",
        description="planetary-computer, earth-search, a STAC API's address, "
        "or a static catalogue's path or address.",
    )
    period: Annotated[str, AfterValidator(_checked_period)] = Field(
        "P30D",
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


class IngestFlowParameters(IngestParameters):
    """Which imagery becomes tiles, or would."""

    plan: bool = Field(
        False, title="Plan only", description="Tell what would be read, and read nothing."
    )


class TrainParameters(SensorParameters):
    """How a hashing model is learned."""

    bits: Annotated[int, AfterValidator(check_bits)] = Field(
        64, title="Bits", description="Length of a code: a multiple of 8 up to 1024."
    )
    clusters: int = Field(
        64, ge=2, title="Clusters", description="Number of pseudo-labels (K). Needs 2 K tiles."
    )
    extractor: Literal["mosaiks", "timm"] = Field(
        "mosaiks",
        title="Feature extractor",
        description="mosaiks: random convolutional features, nothing to download; "
        "timm: a timm architecture with a checkpoint file.",
    )
    timm_architecture: str | None = Field(
        None, title="timm architecture", description="For example mobilenetv1_100."
    )
    timm_checkpoint: str | None = Field(
        None, title="timm checkpoint", description="Path of a .safetensors file on the worker."
    )
    timm_options: dict[str, Any] = Field(
        default_factory=dict,
        title="timm options",
        description="Further arguments of the architecture, such as pad_type.",
    )
    reflectance_ceiling: float = Field(
        0.3,
        gt=0.0,
        le=1.0,
        title="Reflectance ceiling",
        description="The reflectance that a timm network sees as white.",
    )
    seed: int = Field(0, ge=0, title="Seed", description="The same seed gives the same model.")

    @model_validator(mode="after")
    def _has_what_timm_needs(self) -> Self:
        if self.extractor == "timm" and not (self.timm_architecture and self.timm_checkpoint):
            raise FeatureError(
                "The timm extractor needs an architecture and a checkpoint: give both, "
                "such as --timm-architecture mobilenetv1_100 --timm-checkpoint FILE.safetensors."
            )
        return self


class RehashParameters(CatalogParameters):
    """Which model makes the codes."""

    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the newest published model."
    )
    minimum_distinct: int = Field(
        16,
        ge=1,
        title="Minimum of distinct codes",
        description="Quality gate: codes that collapse to fewer are not published.",
    )


class NightlyParameters(IngestParameters, TrainParameters, RehashParameters):
    """A night: new imagery becomes tiles, what changed gets new codes; a first one also trains."""


class SimilarParameters(CatalogParameters):
    """Where to look for similar tiles, and how many to show."""

    k: Annotated[int, Parameter(alias="-k")] = Field(
        10, ge=1, le=10_000, title="Number", description="How many tiles to show."
    )
    minimum_distance: float = Field(
        0.0,
        ge=0.0,
        title="Minimum distance (m)",
        description="Leave out tiles nearer than this: neighbours look alike and are no discovery.",
    )
    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the newest published model."
    )
    picture: Path | None = Field(
        None, title="Picture", description="Also write the tiles as a PNG picture to this file."
    )
