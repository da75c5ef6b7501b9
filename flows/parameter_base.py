"""What all parameters share, and where the catalogue is."""

from __future__ import annotations

import os
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from data_catalog.catalogue_address import check_address
from flows.saved import resolved

P = TypeVar("P", bound="Parameters")


def default_catalog() -> str:
    """The catalogue where none is given."""
    return os.environ.get("RSHASH_CATALOG") or "catalogue"


FIRST = ("area", "period", "sensors", "catalog", "source")
"""Fields that a form begins with."""


def _checked_catalog(catalog: str) -> str:
    return check_address(resolved(catalog, "catalogue"))


def _as_form(schema: dict[str, Any], model: type[Parameters]) -> None:
    """Orders a model's fields for the form in the Prefect UI, and puts some into boxes.

    A field that may be None is a plain one there, which may stay empty.
    """
    fields: dict[str, Any] = schema["properties"]
    for field in fields.values():
        options = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
        if len(options) == 1 and field.get("default", ...) is None:
            del field["anyOf"], field["default"]
            field |= options[0]
    own = [name for one in model.__mro__ for name in get_annotations(one)]
    order = dict.fromkeys(name for name in (*FIRST, *own) if name in fields)
    schema["properties"] = shown = {name: fields[name] for name in order}
    for box, names in model.boxes().items():
        shown[box.box_key] = {
            "type": "object",
            "title": box.box_title,
            "description": (box.__doc__ or "").strip().partition("\n")[0],
            "properties": {name: shown.pop(name) for name in names},
            "additionalProperties": False,
        }


class Parameters(BaseModel):
    """Root of all parameter models.

    A class with a ``box_title`` has its fields in a box of that title in the UI's forms, under
    ``box_key``; what comes from there is taken out of its boxes.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_as_form)
    box_title: ClassVar[str] = ""
    box_key: ClassVar[str] = ""

    @classmethod
    def boxes(cls) -> dict[type[Parameters], list[str]]:
        """The classes whose fields have a box of their own, with these fields."""
        return {
            one: [name for name in get_annotations(one) if name in cls.model_fields]
            for one in cls.__mro__
            if issubclass(one, Parameters) and one.__dict__.get("box_title")
        }

    @model_validator(mode="before")
    @classmethod
    def _out_of_boxes(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        flat = dict(given)
        for box in cls.boxes():
            flat |= flat.pop(box.box_key, None) or {}
        return flat

    def form(self) -> dict[str, Any]:
        """What differs from the defaults, as the form in the UI holds it: in its boxes."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        for box, names in self.boxes().items():
            inside = {name: given.pop(name) for name in names if name in given}
            given |= {box.box_key: inside} if inside else {}
        return given

    def narrowed_to(self, model: type[P]) -> P:
        """The same settings as another model that has a part of the fields."""
        return model.model_validate(self.model_dump(include=set(model.model_fields)))


class CatalogParameters(Parameters):
    """Where the catalogue is."""

    catalog: Annotated[str, AfterValidator(_checked_catalog)] = Field(
        default_factory=default_catalog,
        validate_default=True,
        title="Catalogue",
        description="Folder of the catalogue, s3://bucket/prefix, or saved:NAME. Without it: "
        "RSHASH_CATALOG, else ./catalogue.",
    )
