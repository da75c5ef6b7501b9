"""What a user can set who reads what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import AfterValidator, Field

from data_catalog.areas import parse_area, parse_period
from data_catalog.errors import QueryError
from data_catalog.query_results import check_result_path
from flows.parameters import CatalogParameters


def _checked_region(region: str | None) -> str | None:
    if region is not None:
        parse_area(region)
    return region


def _checked_period(period: str | None) -> str | None:
    if period is not None:
        parse_period(period)
    return period


def _checked_output(path: Path | None) -> Path | None:
    return None if path is None else check_result_path(path)


def _checked_picture(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() != ".png":
        raise QueryError(f"The picture is a PNG, but its file would be {path}: name it *.png.")
    return path


class SimilarParameters(CatalogParameters):
    """What tiles shall be similar to, where to look, and how many to show."""

    lon: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = Field(
        None,
        ge=-180,
        le=180,
        title="Longitude",
        description="Like the tile at this place, degrees.",
    )
    lat: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = Field(
        None, ge=-90, le=90, title="Latitude", description="Like the tile at this place, degrees."
    )
    image: Path | None = Field(
        None,
        title="Image",
        description="Like this image file: a GeoTIFF or 16-bit PNG as large as the model's tiles, "
        "with its bands. It has no place to measure distances from and is on no picture.",
    )
    like: list[str] = Field(
        default_factory=list, title="Like", description="Tile IDs: more like all of these …"
    )
    unlike: list[str] = Field(
        default_factory=list, title="Unlike", description="… and less like these."
    )
    k: Annotated[int, Parameter(alias="-k")] = Field(
        10, ge=1, le=10_000, title="Number", description="How many tiles to show at most."
    )
    radius: int | None = Field(
        None,
        ge=0,
        title="Radius (bits)",
        description="Only tiles whose codes differ in no more bits than this.",
    )
    region: Annotated[
        str | None,
        AfterValidator(_checked_region),
        Parameter(alias="--bbox", allow_leading_hyphen=True),
    ] = Field(
        None,
        title="Region",
        description="Only tiles with their centres in it: 'west,south,east,north' in degrees, "
        "GeoJSON text, or a file of areas as for `rshash ingest --area`.",
    )
    period: Annotated[str | None, AfterValidator(_checked_period)] = Field(
        None,
        title="Period",
        description="Only tiles observed in it: start/end, a day, a month, a year, or P30D.",
    )
    minimum_clear: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        title="Minimum clear fraction",
        description="Only tiles of which at least this share was clear.",
    )
    minimum_distance: float = Field(
        0.0,
        ge=0.0,
        title="Minimum distance (m)",
        description="Leave out tiles nearer than so many metres: neighbours look alike.",
    )
    other_blocks: bool = Field(
        False,
        title="Other blocks",
        description="Leave out tiles of the same block of 8 x 8 tiles.",
    )
    model: str | None = Field(
        None, title="Model", description="Model ID. Without it: the model in use."
    )
    output: Annotated[Path | None, AfterValidator(_checked_output)] = Field(
        None,
        title="Output",
        description="Also write the result to this file: .json, .geojson, .parquet or .csv.",
    )
    picture: Annotated[Path | None, AfterValidator(_checked_picture)] = Field(
        None,
        title="Picture",
        description="Also write the tiles as a picture to this file, "
        ".png: for one tile, a place or --like, of up to 100 tiles.",
    )


class ServeParameters(CatalogParameters):
    """What is served, and where."""

    host: str = Field(
        "127.0.0.1", title="Host", description="Address to listen on; 0.0.0.0 for all."
    )
    port: int = Field(8080, ge=1, le=65_535, title="Port", description="TCP port to listen on.")
    model: str | None = Field(
        None,
        title="Model",
        description="Model ID. Without it: the model in use, whichever that will be.",
    )
    images: bool = Field(
        False,
        title="Images",
        description="Also answer which tiles are like an image; this runs the model's network.",
    )
    wait: bool = Field(
        False,
        title="Wait",
        description="Where there are no codes yet, wait for the first in place of ending.",
    )
