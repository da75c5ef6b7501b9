"""Files of sensors in TOML: their shorthands, and messages that say where a mistake is."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from data_catalog.errors import SensorError

Table = dict[str, Any]


def read_tables(text: str, file: str, known: Mapping[str, Table]) -> dict[str, Table]:
    """The sensors of a file as tables without shorthands, by ID.

    Args:
        text: The file's content.
        file: Its name, for messages.
        known: Tables that a sensor may be ``like``.

    Raises:
        SensorError: It is no TOML, or is like a sensor that is not known.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SensorError(f"{file} is no TOML: {error}.") from None
    tables: dict[str, Table] = {}
    for name, table in content.items():
        if not isinstance(table, dict):
            raise SensorError(
                f"{file}, {name}: expected a table of a sensor, but found {table!r}: write "
                '["my-sensor"] above its keys.'
            )
        tables[name] = _in_full(name, _inherited(name, table, file, {**known, **tables}))
    return tables


def explain(
    error: pydantic.ValidationError, file: str, sensor: str, keys: Iterable[str]
) -> SensorError:
    """The error that tells what is wrong with a sensor's table, key by key.

    Args:
        error: What pydantic found.
        file: The file's name.
        sensor: The sensor's ID.
        keys: The keys there are.
    """
    keys = list(keys)
    lines = [_explain_one(dict(one), keys) for one in error.errors()]
    return SensorError(f"{file}, sensor {sensor}: {'; '.join(lines)}. See docs/sensors.md.")


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that offers the names that are most like one; empty where none is."""
    close = difflib.get_close_matches(name, list(names), n=2, cutoff=0.4)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _inherited(name: str, table: Table, file: str, known: Mapping[str, Table]) -> Table:
    table = dict(table)
    parent = table.pop("like", None)
    if parent is None:
        return table
    if parent not in known:
        raise SensorError(
            f"{file}, sensor {name}, like: there is no sensor {parent!r}"
            f"{nearest(str(parent), known)}: name one of {', '.join(known)}."
        )
    merged = dict(known[parent])
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def _in_full(name: str, table: Table) -> Table:
    table = dict(table)
    collections = {"default": name, **table.get("collections", {})}
    if "collection" in table:
        collections["default"] = table.pop("collection")
    resolution = {"resolution": table.get("resolution")}
    bands = table.get("bands", {})
    if isinstance(bands, list):
        bands = {str(band): str(band) for band in bands}
    if isinstance(bands, dict):
        bands = {band: _band(band, value, resolution) for band, value in bands.items()}
    table |= {"collections": collections, "bands": bands}
    if isinstance(table.get("mask"), dict):
        table["mask"] = {**resolution, **table["mask"]}
    return table


def _band(name: str, written: Any, resolution: Table) -> Any:
    """A band that is written as its asset key, or as a list of them, as a table."""
    if isinstance(written, str | list):
        written = {"keys": [written] if isinstance(written, str) else written}
    return {"keys": [name], **resolution, **written} if isinstance(written, dict) else written


def _explain_one(error: dict[str, Any], keys: list[str]) -> str:
    path = [str(part) for part in error["loc"]]
    place = ".".join(path)
    if error["type"] == "missing":
        return f"{place} is missing: add it"
    if error["type"] == "unexpected_keyword_argument":
        return f"{place} is unknown{nearest(path[-1], keys)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}, but found {error['input']!r}" if place else message
