"""The records that a catalogue is made of: the root, its collections' pointers and its items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pystac

from data_catalog import stac
from data_catalog.claims import check_not_removed
from data_catalog.errors import CatalogueError
from data_catalog.versions import LINKS, version_link

CATALOGUE_ID = "rshash"
ROOT = "catalog.json"
"""Name of the root's record in a catalogue's store."""


MODEL_IN_USE = "rshash:model_in_use"
"""Field of the models' collection: the model whose codes answer."""


def pointer_name(collection_id: str) -> str:
    """Name of a collection's record in the catalogue's store."""
    return f"{collection_id}/collection.json"


def record_name(collection_id: str, item_id: str) -> str:
    """Name of an item's record in the catalogue's store."""
    return f"{collection_id}/{item_id}/{item_id}.json"


def empty_catalog() -> dict[str, Any]:
    """The root of a catalogue that nothing is published in."""
    return {
        "type": "Catalog",
        "stac_version": stac.STAC_VERSION,
        "id": CATALOGUE_ID,
        "title": "Hash codes of satellite imagery",
        "description": "Observed tiles, trained models and the hash codes of every tile.",
        "links": [stac.link("root", "./catalog.json")],
    }


def with_child(root: dict[str, Any] | None, collection_id: str) -> dict[str, Any]:
    """The root once a collection is linked from it."""
    root = root or empty_catalog()
    child = stac.link("child", f"./{pointer_name(collection_id)}")
    return root if child in root["links"] else {**root, "links": [*root["links"], child]}


def without_child(root: dict[str, Any] | None, collection_id: str) -> dict[str, Any]:
    """The root once a collection is not linked from it any more."""
    root = root or empty_catalog()
    href = f"./{pointer_name(collection_id)}"
    return {**root, "links": [link for link in root["links"] if link["href"] != href]}


def item_link(item_id: str) -> dict[str, str]:
    """A pointer's link to an item."""
    return stac.link("item", f"./{item_id}/{item_id}.json")


def listed(pointer: dict[str, Any] | None) -> list[str]:
    """IDs of the items that a pointer lists, in order; none where there is no pointer."""
    links = pointer["links"] if pointer else []
    return [Path(link["href"]).stem for link in links if link["rel"] == "item"]


def model_in_use(pointer: dict[str, Any] | None) -> str | None:
    """The model that the models' collection says is in use: the first one where it says none."""
    models = listed(pointer)
    return (pointer or {}).get(MODEL_IN_USE) or (models[0] if models else None)


def with_model_in_use(pointer: dict[str, Any] | None, model_id: str) -> dict[str, Any]:
    """The models' collection once another of its models is in use.

    Raises:
        CatalogueError: The model is not, or is no longer, among them.
    """
    check_not_removed(pointer, model_id)
    if pointer is None or model_id not in listed(pointer):
        raise CatalogueError(
            f"Model {model_id!r} is not published: there is {', '.join(listed(pointer)[-5:])}."
        )
    return {**pointer, MODEL_IN_USE: model_id}


def item_record(
    item: pystac.Item,
    collection_id: str,
    supersedes: str | None,
    subfolder: str,
    claim: str | None,
) -> dict[str, Any]:
    """An item's record as it is published, with the catalogue's own links.

    Args:
        item: The item; its assets' hrefs are relative to where they are staged.
        collection_id: Its collection.
        supersedes: The item that it is a new version of.
        subfolder: Where the assets lie in the item's folder.
        claim: What tells this publication from others of the item; None where it is locked.
    """
    record = item.to_dict(include_self_link=False, transform_hrefs=False)
    for asset in record["assets"].values() if subfolder else []:
        asset["href"] = f"./{subfolder}/" + asset["href"].removeprefix("./")
    ours = {"root", "parent", "collection", *LINKS}
    record["links"] = [link for link in record["links"] if link["rel"] not in ours]
    record["links"] += [
        stac.link("root", "../../catalog.json"),
        stac.link("parent", "../collection.json"),
        stac.link("collection", "../collection.json"),
    ]
    if supersedes is not None:
        record["links"].append(version_link("predecessor-version", supersedes))
    record["collection"] = collection_id
    if claim is not None:
        record["properties"]["rshash:publication"] = claim
    record["properties"].setdefault("created", stac.timestamp())
    record["properties"].setdefault("version", "1")
    for uri in (stac.FILE, stac.VERSION):
        if uri not in record["stac_extensions"]:
            record["stac_extensions"].append(uri)
    return record


def deprecated(record: dict[str, Any] | None) -> dict[str, Any]:
    """An item's record once the item is superseded."""
    assert record is not None
    return {**record, "properties": {**record["properties"], "deprecated": True}}


def content_row(collection_id: str, item: pystac.Item, in_use: str | None) -> dict[str, Any]:
    """What a list of the catalogue's contents says of an item."""
    sizes = [asset.extra_fields.get("file:size", 0) for asset in item.assets.values()]
    return {
        "collection": collection_id,
        "item": item.id,
        "version": item.properties.get("version"),
        "rows": item.properties.get("table:row_count"),
        "bits": item.properties.get("rshash:bits"),
        "published": item.properties.get("created"),
        "size": sum(sizes),
        "file": next((a.get_absolute_href() for a in item.assets.values()), None),
        "in_use": in_use is not None and item.properties.get("rshash:model") == in_use,
    }
