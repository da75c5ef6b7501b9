"""The catalogue's records as a STAC API wants them, and how they compare to what it gives back."""

from __future__ import annotations

import math
import posixpath
from datetime import datetime
from typing import Any
from urllib.parse import quote

import shapely

from data_catalog.catalogue import Catalogue

STRUCTURE = {"self", "root", "parent", "collection", "items", "item", "child"}
"""Links that an API makes itself."""


class ApiRecords:
    """Records with addresses that hold wherever they are read."""

    def __init__(self, catalogue: Catalogue, api: str, files_at: str | None = None) -> None:
        """Describes how records change.

        Args:
            catalogue: Holds them.
            api: The API's address.
            files_at: Base of assets' addresses; without it where they are.
        """
        self._catalogue, self._api = catalogue, api
        self._files = (files_at or catalogue.store.uri).rstrip("/")

    def collection(self, collection: str) -> dict[str, Any]:
        """A collection's record."""
        published = self._catalogue.collection(collection)
        record = published.to_dict(include_self_link=False, transform_hrefs=False)
        record["links"] = self._links(record["links"], collection)
        return record

    def item(self, collection: str, item_id: str) -> dict[str, Any]:
        """An item's record.

        One without a place of its own has that of what it derives from, and one of a period the
        period's end as its moment: databases of records want both.
        """
        item = self._catalogue.item(collection, item_id)
        record = item.to_dict(include_self_link=False, transform_hrefs=False)
        folder = f"{collection}/{item_id}"
        for asset in record["assets"].values():
            asset["href"] = _joined(self._files, posixpath.join(folder, asset["href"]))
        if record["geometry"] is None:
            box = self._box_of_sources(record["links"], folder)
            record |= {"geometry": shapely.box(*box).__geo_interface__, "bbox": list(box)}
        properties = record["properties"]
        properties["datetime"] = properties["datetime"] or properties["end_datetime"]
        record["links"] = self._links(record["links"], folder)
        return record

    def _links(self, links: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
        kept = [link for link in links if link["rel"] not in STRUCTURE]
        return [{**link, "href": self._address(link["href"], folder)} for link in kept]

    def _address(self, href: str, folder: str) -> str:
        found = _within(href, folder)
        if found is None:
            return href
        collection, *item = found
        address = f"{self._api}/collections/{quote(collection, safe='')}"
        return f"{address}/items/{quote(item[0], safe='')}" if item else address

    def _box_of_sources(
        self, links: list[dict[str, Any]], folder: str
    ) -> tuple[float, float, float, float]:
        sources = [_within(link["href"], folder) for link in links if link["rel"] == "derived_from"]
        found = [self._catalogue.item(*source).bbox for source in sources if source]
        boxes = [box for box in found if box] or [[-180.0, -90.0, 180.0, 90.0]]
        west, south, east, north = zip(*boxes, strict=True)
        return min(west), min(south), max(east), max(north)


def difference(record: Any, there: Any, name: str = "") -> str:
    """Where a record that an API gives back differs from the one that it was sent.

    APIs make the links of their structure themselves, leave out what is null or empty, write
    moments and numbers in their own way, and may add fields.

    Args:
        record: What was sent.
        there: What is there.
        name: Of the part that is compared.

    Returns:
        Name of the first part that differs; empty where none does.
    """
    if isinstance(record, dict) and isinstance(there, dict):
        for key, value in record.items():
            part = f"{name}.{key}" if name else key
            if key == "links":
                if _link_set(value) - _link_set(there.get(key, [])):
                    return part
            elif value not in (None, [], {}):
                found = difference(value, there.get(key), part)
                if found:
                    return found
        return ""
    if isinstance(record, list | tuple) and isinstance(there, list | tuple):
        if len(record) != len(there):
            return name
        pairs = zip(record, there, strict=True)
        return next(filter(None, (difference(a, b, name) for a, b in pairs)), "")
    return "" if _same(record, there) else name


def _same(value: Any, there: Any) -> bool:
    if isinstance(value, float) and isinstance(there, int | float):
        return math.isclose(value, there, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(value, str) and isinstance(there, str) and value != there:
        try:
            return datetime.fromisoformat(value) == datetime.fromisoformat(there)
        except ValueError:
            return False
    return bool(value == there)


def _link_set(links: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(link["rel"], link["href"]) for link in links if link["rel"] not in STRUCTURE}


def _within(href: str, folder: str) -> list[str] | None:
    """Collection, and item if it is one, that a relative address within the catalogue means."""
    if "://" in href or href.startswith("/"):
        return None
    parts = posixpath.normpath(posixpath.join(folder, href)).split("/")
    return parts[:-1] if parts[-1] in ("collection.json", f"{parts[-2]}.json") else None


def _joined(base: str, path: str) -> str:
    return f"{base}/{quote(posixpath.normpath(path))}"
