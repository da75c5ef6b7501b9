"""Legends: what the numbers of a land cover map mean, from the map's own STAC records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.errors import SourceError

_UNSEEN = {"no data", "nodata", "no-data", "unknown", "cloud", "clouds"}
"""Names of classes that tell nothing about the ground."""


@dataclass(frozen=True)
class Legend:
    """What the numbers of a collection's maps mean.

    Attributes:
        asset: Key of the asset that holds the map.
        classes: Numbers of each class, by its name.
        nodata: The number of pixels that were not mapped.
    """

    asset: str
    classes: dict[str, tuple[int, ...]]
    nodata: int

    def class_of(self, numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Place of each number's class in ``classes``, counted from 1; 0 for all other numbers."""
        table = np.zeros(1 << 16, np.uint8)
        for place, values in enumerate(self.classes.values(), 1):
            table[list(values)] = place
        return table[numbers.astype(np.uint16)]


def legend_of(collection: pystac.Collection, item: pystac.Item) -> Legend:
    """What the numbers of a map mean, by its own record or its collection's.

    Understood are ``classification:classes`` and ``file:values``. Classes that tell nothing about
    the ground, such as clouds, count as not mapped.

    Raises:
        SourceError: Neither record names the classes.
    """
    assets = {key: asset.extra_fields for key, asset in item.assets.items()}
    common = {key: one.properties for key, one in collection.item_assets.items()}
    for key, fields in [*assets.items(), *common.items()]:
        entries = _named_numbers(fields)
        if entries and key in assets:
            nodata = _nodata(fields)
            classes = {
                name: tuple(number for number in numbers if number != nodata)
                for name, numbers in entries.items()
                if name.lower() not in _UNSEEN
            }
            return Legend(key, {name: ns for name, ns in classes.items() if ns}, nodata)
    raise SourceError(
        f"Collection {collection.id!r} does not tell what the numbers of its maps mean (no asset "
        "with classification:classes or file:values): choose a land cover collection, such as "
        "esa-worldcover or io-lulc-annual-v02 at planetary-computer."
    )


def _named_numbers(fields: Mapping[str, Any]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for entry in fields.get("classification:classes", []):
        name = entry.get("title") or entry.get("name") or entry.get("description")
        if name and not entry.get("nodata"):
            named.setdefault(str(name), []).append(int(entry["value"]))
    for entry in fields.get("file:values", []):
        named.setdefault(str(entry["summary"]), []).extend(int(v) for v in entry["values"])
    return named


def _nodata(fields: Mapping[str, Any]) -> int:
    bands = [*fields.get("bands", []), *fields.get("raster:bands", []), fields]
    stated = [band["nodata"] for band in bands if isinstance(band.get("nodata"), int)]
    return stated[0] if stated else 0
