"""What all parameters share, and where the catalogue is."""

from __future__ import annotations

import os
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

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

    catalog: str = Field(
        default_factory=_default_catalog,
        title="Catalogue",
        description="Folder of the catalogue. Without it: RSHASH_CATALOG, else ./catalogue.",
    )
