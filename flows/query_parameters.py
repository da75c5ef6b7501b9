"""What a user can set who reads what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from flows.parameters import CatalogParameters


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


class ServeParameters(CatalogParameters):
    """What is served, and where."""

    host: str = Field(
        "127.0.0.1", title="Host", description="Address to listen on; 0.0.0.0 for all."
    )
    port: int = Field(8080, ge=1, le=65_535, title="Port", description="TCP port to listen on.")
    model: str | None = Field(
        None,
        title="Model",
        description="Model ID. Without it: the newest with codes, whichever that will be.",
    )
    images: bool = Field(
        False,
        title="Images",
        description="Also answer which tiles are like an image; this runs the model's network.",
    )
