"""What a user can set of the one process that runs it all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from pydantic import AfterValidator, Field, model_validator

from data_catalog.areas import parse_area
from data_catalog.catalogue_address import check_address
from flows.parameter_base import default_catalog
from flows.parameters import NightlyParameters
from flows.saved import SAVED
from rshash.errors import RshashError

_DATABASE = re.compile(r"(?:postgresql|postgres)(?:\+asyncpg)?://(.+)", re.DOTALL)


def _default_home() -> Path:
    return Path(os.environ.get("RSHASH_HOME") or Path.home() / ".rshash")


def _known_now(catalog: str) -> str:
    if catalog.startswith(SAVED):
        raise RshashError(
            f"--catalog {catalog}: the Prefect server that knows it is only started by this "
            "command. Give the catalogue's folder or address."
        )
    return check_address(catalog)


def _checked_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise RshashError(
            f"--timezone {name}: there is no such time zone. Give one as in Europe/Berlin, or UTC."
        ) from None
    return name


def _checked_database(address: str | None) -> str | None:
    if address is None:
        return None
    match = _DATABASE.fullmatch(address)
    if match is None:
        # It is not repeated: a password may be in it.
        raise RshashError(
            "--database, or RSHASH_DATABASE, is no address of a PostgreSQL database: expected "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        )
    return f"postgresql+asyncpg://{match[1]}"


def _default_database() -> str | None:
    # pydantic checks no defaults.
    return _checked_database(os.environ.get("RSHASH_DATABASE") or None)


class UpParameters(NightlyParameters):
    """What runs, where it listens, and what a night does."""

    area: Annotated[str, Parameter(allow_leading_hyphen=True)] = Field(
        "",
        title="Area",
        description="Area of the nights, as `rshash nightly` takes it; saved:NAME is looked up "
        "when a night begins. Without it nights are started by hand.",
    )
    source: str = Field(
        NightlyParameters.model_fields["source"].default,
        title="Source catalogue",
        description="Of the nights, as `rshash nightly` takes it; saved:NAME is looked up when a "
        "night begins.",
    )
    catalog: Annotated[str, AfterValidator(_known_now)] = Field(
        default_factory=default_catalog,
        validate_default=True,
        title="Catalogue",
        description="Folder of the catalogue, or s3://bucket/prefix. Without it: RSHASH_CATALOG, "
        "else ./catalogue.",
    )
    cron: str = Field(
        "0 2 * * *",
        title="Schedule",
        description="When a night begins, as cron has it: minute, hour, day, month, weekday.",
    )
    timezone: Annotated[str, AfterValidator(_checked_timezone)] = Field(
        "UTC", title="Time zone", description="Of the schedule, such as Europe/Berlin."
    )
    home: Path = Field(
        default_factory=_default_home,
        title="Home",
        description="Folder of Prefect's database and of the logs. Without it: RSHASH_HOME, else "
        "~/.rshash.",
    )
    database: Annotated[str | None, AfterValidator(_checked_database)] = Field(
        default_factory=_default_database,
        title="Database",
        description="PostgreSQL for Prefect: postgresql://USER:PASSWORD@HOST:PORT/DATABASE; best "
        "given as RSHASH_DATABASE, since others can read options. Without it: SQLite in the home.",
        repr=False,
    )
    host: str = Field(
        "127.0.0.1",
        title="Host",
        description="Address that the Prefect server listens on; 0.0.0.0 for all. Who can reach "
        "it can run code here: set PREFECT_SERVER_API_AUTH_STRING too.",
    )
    port: int = Field(4200, ge=1, le=65_535, title="Port", description="Of the Prefect server.")
    service_host: str = Field(
        "127.0.0.1",
        title="Host of the service",
        description="Address that the catalogue service listens on; 0.0.0.0 for all. It is "
        "read-only.",
    )
    service_port: int = Field(
        8080, ge=1, le=65_535, title="Port of the service", description="Of the catalogue service."
    )

    @model_validator(mode="after")
    def _area_is_of_tiles_of_this_size(self) -> Self:
        if self.area and not self.area.startswith(SAVED):
            parse_area(self.area, self.tile_size)
        return self

    @property
    def night(self) -> NightlyParameters | None:
        """What every night is to do; None where only the running server knows all of it."""
        if not self.area or any(one.startswith(SAVED) for one in (self.area, self.source)):
            return None
        return self.narrowed_to(NightlyParameters)

    @property
    def night_form(self) -> dict[str, Any]:
        """What every night is to do, as the form in the UI holds it."""
        own = set(UpParameters.model_fields) - set(NightlyParameters.model_fields)
        return {name: value for name, value in self.form().items() if name not in own}
