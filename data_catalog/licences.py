"""Licences travel: whom to credit for data made from scenes of certain sensors and years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pystac

from data_catalog.sensors import get_sensor

Sources = dict[str, list[int]]
"""Years of the scenes that something was made from, by sensor ID."""

PROCESSOR = {
    "name": "rshash",
    "description": "Cut, resampled, encoded and published by rshash.",
    "roles": ["processor"],
}


def source_years(sensor_id: str, datetimes: Iterable[Any]) -> Sources:
    """The sources of data that comes from one sensor's scenes of these moments."""
    import pandas as pd

    moments = datetimes if isinstance(datetimes, pd.Series) else pd.Series(list(datetimes))
    years = pd.to_datetime(moments, utc=True).dropna().dt.year
    return {sensor_id: sorted(map(int, years.unique()))}


def merge_sources(*sources: Mapping[str, list[int]]) -> Sources:
    """The sources of data made from all of these."""
    merged: dict[str, set[int]] = {}
    for one in sources:
        for sensor_id, years in one.items():
            merged.setdefault(sensor_id, set()).update(years)
    return {sensor_id: sorted(years) for sensor_id, years in merged.items()}


def attribution(sources: Mapping[str, list[int]]) -> str:
    """The text that credits the sources, for example in a picture's margin."""
    texts = [get_sensor(sensor_id).attribution_of(years) for sensor_id, years in sources.items()]
    return "; ".join(text for text in texts if text)


def licence_fields(sources: Mapping[str, list[int]]) -> dict[str, Any]:
    """The STAC fields ``license``, ``providers``, ``attribution`` and ``rshash:sources``."""
    sensors = [get_sensor(sensor_id) for sensor_id in sources]
    licences = {sensor.license for sensor in sensors}
    providers = {p["name"]: p for sensor in sensors for p in sensor.providers}
    return {
        "license": licences.pop() if len(licences) == 1 else "other",
        "providers": [*providers.values(), PROCESSOR],
        "attribution": attribution(sources),
        "rshash:sources": dict(sources),
    }


def licence_links(sources: Mapping[str, list[int]]) -> list[pystac.Link]:
    """Links to the licences of the sources."""
    sensors = [get_sensor(sensor_id) for sensor_id in sources]
    return [
        pystac.Link("license", sensor.license_url, "text/html", f"Licence of {sensor.title}")
        for sensor in sensors
        if sensor.license_url
    ]


def collection_credit(collection: pystac.Collection) -> dict[str, Any]:
    """The STAC fields ``license``, ``providers`` and ``attribution`` of data from a collection.

    Where the collection does not say how it wants to be credited, its producers are.
    """
    known = [provider.to_dict() for provider in collection.providers or []]
    producers = [p["name"] for p in known if {"producer", "licensor"} & set(p.get("roles", []))]
    by = f" by {', '.join(producers)}" if producers else ""
    text = f"{collection.title or collection.id}{by} ({collection.license})"
    return {
        "license": collection.license,
        "providers": [*known, PROCESSOR],
        "attribution": collection.extra_fields.get("attribution", text),
    }


def collection_licence_links(collection: pystac.Collection) -> list[pystac.Link]:
    """Links to a collection's licences."""
    return [
        pystac.Link("license", str(link.get_absolute_href()), link.media_type, link.title)
        for link in collection.get_links("license")
    ]
