"""Files in a catalogue that nothing points to: left by runs that were cut off, or still staged."""

from __future__ import annotations

import time
from pathlib import Path

from data_catalog.catalogue import Catalogue
from data_catalog.catalogue_records import pointer_name
from data_catalog.planning import KEEP_DAYS, PLANS
from data_catalog.store import FolderStore

SETTLED_SECONDS = 24 * 3600
"""What was changed within this time may be a running publication's."""

KINDS = ("tiles-", "models", "labels-", "land-cover-", "codes-")
"""What the names of collections begin with."""

_DAY = 86400


def orphans(catalogue: Catalogue) -> list[str]:
    """Names of the files and folders that no record leads to, whether or not they are in use."""
    published = catalogue.collections()
    found = [name for name in catalogue.store.names(".") if _is_staged(name)]
    for collection_id in catalogue.store.names("."):
        if not collection_id.startswith(KINDS):
            continue
        for name in catalogue.store.names(collection_id):
            path = f"{collection_id}/{name}"
            if collection_id in published and path == pointer_name(collection_id):
                continue
            if not catalogue.is_published(collection_id, name):
                found.append(path)
            else:
                known = _files_of(catalogue, collection_id, name)
                files = catalogue.store.names(path)
                found += [f"{path}/{file}" for file in files if file not in known]
    return found


def is_orphan(catalogue: Catalogue, name: str) -> bool:
    """Whether a file or folder still is one of those that ``orphans`` names."""
    if not catalogue.store.exists(name):
        return False
    collection_id, *rest = name.split("/")
    if not rest:
        return _is_staged(name)
    if name == pointer_name(collection_id):
        return collection_id not in catalogue.collections()
    is_published = catalogue.is_published(collection_id, rest[0])
    if len(rest) == 1:
        return not is_published
    return is_published and rest[1] not in _files_of(catalogue, collection_id, rest[0])


def is_in_use(catalogue: Catalogue, name: str) -> bool:
    """Whether a run may be about to publish an orphan: a planned segment, or a recent change."""
    if is_planned(catalogue, name.rpartition("/")[2]):
        return True
    return catalogue.store.modified(name) > time.time() - SETTLED_SECONDS


def is_planned(catalogue: Catalogue, segment_id: str) -> bool:
    """Whether a run on this machine may come back to the saved plan of a segment."""
    working, plan = FolderStore(catalogue.root), f"{PLANS}/{segment_id}"
    return working.exists(plan) and working.modified(plan) > time.time() - KEEP_DAYS * _DAY


def _files_of(catalogue: Catalogue, collection_id: str, item_id: str) -> set[str]:
    """Names in a published item's folder that its record leads to."""
    item = catalogue.item(collection_id, item_id)
    return {Path(asset.href).parts[0] for asset in item.assets.values()} | {f"{item_id}.json"}


def _is_staged(name: str) -> bool:
    return name.startswith(".") and name.endswith(".staged")
