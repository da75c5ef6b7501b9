"""Prefect blocks: areas, catalogues and their secrets, saved on the server and edited in its UI.

`prefect block register --module flows.blocks` makes the UI offer them; so does saving one.
"""

from __future__ import annotations

import os
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class Saved(Block):
    """What parameters name as ``saved:NAME``.

    Attributes:
        environment: The environment variables that its fields stand for.
    """

    environment: ClassVar[dict[str, str]] = {}

    @property
    def text(self) -> str:
        """What stands for it in parameters."""
        return str(getattr(self, next(iter(type(self).model_fields))))

    def provide(self) -> None:
        """Puts its secrets where the libraries that need them look: this process's environment."""
        for field, variable in self.environment.items():
            value = getattr(self, field)
            if value:
                secret = isinstance(value, SecretStr)
                os.environ[variable] = value.get_secret_value() if secret else value


class Area(Saved):
    """An area of interest."""

    _block_type_name = "rshash area"
    _block_type_slug = "rshash-area"
    _description = "An area of interest: parameters name it as saved:NAME."

    area: str = Field(
        title="Area",
        description="'west,south,east,north' in degrees, points 'lon,lat lon,lat', or GeoJSON.",
    )


class Source(Saved):
    """A catalogue that imagery comes from."""

    _block_type_name = "rshash source"
    _block_type_slug = "rshash-source"
    _description = "A STAC catalogue of imagery: parameters name it as saved:NAME."
    environment: ClassVar = {"subscription_key": "PC_SDK_SUBSCRIPTION_KEY"}

    address: str = Field(
        title="Address",
        description="planetary-computer, earth-search, a STAC API's address, or a static "
        "catalogue's path or address.",
    )
    subscription_key: SecretStr | None = Field(
        None,
        title="Subscription key",
        description="Key for the Planetary Computer's signing service, which then answers more "
        "requests.",
    )


class CatalogueBlock(Saved):
    """A catalogue that rshash publishes to."""

    _block_type_name = "rshash catalogue"
    _block_type_slug = "rshash-catalogue"
    _description = "A catalogue of tiles and codes: parameters name it as saved:NAME."
    environment: ClassVar = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
        "region": "AWS_REGION",
        "endpoint_url": "AWS_ENDPOINT_URL",
    }

    address: str = Field(
        title="Address", description="A folder on the worker, or s3://bucket/prefix."
    )
    access_key_id: SecretStr | None = Field(
        None, title="Access key ID", description="Of a bucket's user."
    )
    secret_access_key: SecretStr | None = Field(
        None, title="Secret access key", description="Of a bucket's user."
    )
    session_token: SecretStr | None = Field(
        None, title="Session token", description="Of a bucket's user for a while."
    )
    region: str | None = Field(None, title="Region", description="Such as eu-central-1.")
    endpoint_url: str | None = Field(
        None, title="Endpoint", description="Address of an object store that is not AWS's own."
    )


class StacApi(Saved):
    """A STAC API that published records are pushed to."""

    _block_type_name = "rshash STAC API"
    _block_type_slug = "rshash-stac-api"
    _description = "A STAC API to push records to: `rshash publish --to saved:NAME`."
    environment: ClassVar = {"token": "RSHASH_STAC_API_TOKEN"}

    address: str = Field(title="Address", description="Such as https://stac.example.com.")
    token: SecretStr | None = Field(
        None, title="Token", description="Bearer token that may write to it."
    )
