"""What all parameters share, and where the catalogue is."""

from __future__ import annotations

import os
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_catalog.catalogue_address import check_address

P = TypeVar("P", bound="Parameters")


def _default_catalog() -> str:
    return os.environ.get("RSHASH_CATALOG") or "catalogue"


class Parameters(BaseModel):
    """Root of all parameter models."""

    model_config = ConfigDict(extra="forbid")

    def narrowed_to(self, model: type[P]) -> P:
        """The same settings as another model that has a part of the fields."""
        return model.model_validate(self.model_dump(include=set(model.model_fields)))


class CatalogParameters(Parameters):
    """Where the catalogue is."""

    catalog: Annotated[str, AfterValidator(check_address)] = Field(
        default_factory=_default_catalog,
        title="Catalogue",
        description="Folder of the catalogue, or s3://bucket/prefix. Without it: RSHASH_CATALOG, "
        "else ./catalogue.",
    )
