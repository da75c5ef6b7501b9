"""Versions of one thing: which follows which, what their records say of it, and going back.

IDs of versions end in their number: ``…-v1``, ``…-v2``. Going back leaves all of them where they
are: the older one is listed again, and the next new version follows it under the next free number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog import stac
from data_catalog.errors import CatalogueError

if TYPE_CHECKING:
    from data_catalog.catalogue import Catalogue

LINKS = ("predecessor-version", "successor-version", "latest-version")


def series_of(item_id: str) -> str:
    """What all versions' IDs begin with; the ID itself where it has no version."""
    match = re.fullmatch(r"(.+)-v\d+", item_id)
    return match[1] if match else item_id


def number_of(item_id: str) -> int:
    """Number of a version; 1 where the ID has none."""
    match = re.fullmatch(r".+-v(\d+)", item_id)
    return int(match[1]) if match else 1


def in_order(item_ids: Iterable[str]) -> list[str]:
    """Versions of one thing, oldest first."""
    return sorted(item_ids, key=number_of)


def next_version(versions: Iterable[str]) -> int:
    """The first number that no version has had since the oldest that is kept."""
    return 1 + max(map(number_of, versions), default=0)


def version_link(rel: str, item_id: str) -> dict[str, str]:
    """A link from one version to another."""
    return stac.link(rel, f"../{item_id}/{item_id}.json")


def linked_version(record: dict[str, Any], rel: str) -> str | None:
    """The item that a record's version link leads to."""
    hrefs = [link["href"] for link in record["links"] if link["rel"] == rel]
    return Path(hrefs[0]).stem if hrefs else None


def settled(records: dict[str, dict[str, Any]], current: str | None) -> dict[str, dict[str, Any]]:
    """Those of a thing's versions whose records have to change, with how.

    All that is not current is ``deprecated``, and leads to the latest version and to the one that
    replaced it. A link to a version that is removed is left out.

    Args:
        records: Records of all published versions, by ID.
        current: The version that is listed.
    """
    before = {item_id: linked_version(records[item_id], LINKS[0]) for item_id in records}
    successors = {before[item_id]: item_id for item_id in in_order(records) if before[item_id]}
    changed = {}
    for item_id, record in records.items():
        links = [link for link in record["links"] if link["rel"] not in LINKS]
        is_old = current is not None and item_id != current
        wanted = (
            before[item_id],
            successors.get(item_id) if is_old else None,
            current if is_old else None,
        )
        for rel, target in zip(LINKS, wanted, strict=True):
            if target in records:
                links.append(version_link(rel, str(target)))
        properties = {k: v for k, v in record["properties"].items() if k != "deprecated"}
        if is_old:
            properties["deprecated"] = True
        new = {**record, "properties": properties, "links": links}
        if new != record:
            changed[item_id] = new
    return changed


def older_versions(catalogue: Catalogue, collection_id: str, before: str) -> list[str]:
    """The newest version of each thing that was published before a moment, where newer are current.

    Args:
        catalogue: The catalogue.
        collection_id: The collection.
        before: The moment, as STAC writes it.

    Raises:
        CatalogueError: Something has no version that old.
    """
    chosen = []
    for current in catalogue.item_ids(collection_id):
        versions = catalogue.versions(collection_id, current)
        created = {one: _created(catalogue, collection_id, one) for one in versions}
        older = [one for one in versions if created[one] < before]
        if not older:
            raise CatalogueError(
                f"{series_of(current)} has no version from before {before}: the oldest that is "
                f"kept, {versions[0]}, is of {created[versions[0]]}."
            )
        if older[-1] != current:
            chosen.append(older[-1])
    return chosen


def _created(catalogue: Catalogue, collection_id: str, item_id: str) -> str:
    return str(catalogue.item(collection_id, item_id).properties["created"])
