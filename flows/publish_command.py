"""The command that pushes what is published to a STAC API."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from cyclopts import Parameter
from pydantic import AfterValidator, Field, model_validator

from data_catalog.errors import CatalogueError
from flows.parameters import CatalogParameters
from flows.saved import resolved
from flows.tables import print_rows


def check_api_address(address: str) -> str:
    """The address of a STAC API as it is, if it can be one.

    Raises:
        CatalogueError: It is none, or holds a password.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise CatalogueError(
            f"{address!r} is no address of a STAC API: give one such as https://stac.example.com."
        )
    if parts.username or parts.password:
        raise CatalogueError(
            "An address with a password would be kept in logs: leave it out of --to, and set "
            "RSHASH_STAC_API_TOKEN to a token that may write."
        )
    return address


def _resolved_address(address: str) -> str:
    return check_api_address(resolved(address, "stac-api"))


class PublishParameters(CatalogParameters):
    """Where what is published goes besides."""

    to: Annotated[str, AfterValidator(_resolved_address)] = Field(
        title="STAC API",
        description="Address of a STAC API with the Transaction extension, or saved:NAME. A token "
        "that it wants is saved with it, or taken from RSHASH_STAC_API_TOKEN.",
    )
    files_at: str | None = Field(
        None,
        title="Address of the files",
        description="Where users of the API reach the catalogue's folder, such as "
        "https://data.example.com/catalogue. Without it: where it is here.",
    )

    @model_validator(mode="after")
    def _files_have_an_address(self) -> Self:
        if self.files_at is not None and "://" not in self.files_at:
            raise CatalogueError(
                f"--files-at {self.files_at!r} is no address: give one such as "
                "https://data.example.com/catalogue or s3://bucket/catalogue."
            )
        return self


def publish(*, parameters: Annotated[PublishParameters, Parameter(name="*")]) -> None:
    """Push the catalogue's records to a STAC API: what is new or changed, and nothing else.

    A push that was cut off is simply started again. Nothing is deleted there.

    **Example**: for an API beside which the catalogue's folder is served

        rshash publish --to https://stac.example.com --files-at https://data.example.com/catalogue
    """
    from data_catalog.catalogue import Catalogue
    from data_catalog.stac_api_push import push
    from flows.progress import Progress

    catalogue = Catalogue.open(parameters.catalog)
    with Progress("push", len(catalogue.collections()), "collections") as bar:
        rows = push(catalogue, parameters.to, parameters.files_at, bar.show)
        bar.show(bar.total, bar.total)
    print_rows(rows, f"Pushed to {parameters.to}")
