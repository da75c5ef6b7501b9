"""What a catalogue's working folder on this machine can do without."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import PurePosixPath

from data_catalog.catalogue import Catalogue
from data_catalog.catalogue_address import CACHED_ASSETS, CACHED_FEATURES
from data_catalog.orphans import KINDS, SETTLED_SECONDS, is_planned
from data_catalog.planning import PLANS
from data_catalog.store import FolderStore


def given_up(catalogue: Catalogue) -> dict[str, str]:
    """Names of what no run came back to, with why: plans, then what is staged for a bucket."""
    working = FolderStore(catalogue.root)
    staged: list[str] = []
    if not catalogue.store.has_locks:
        # What is staged for a bucket is no part of it: none of this is published.
        staged = [name for name in working.names(".") if name.startswith(KINDS)]
    found = dict.fromkeys(_within(working, [PLANS]), "a plan that no run came back to")
    found |= dict.fromkeys(_within(working, staged), "staged here by a run that was cut off")
    return {name: why for name, why in found.items() if is_left(catalogue, name)}


def stale_caches(catalogue: Catalogue, going: Collection[str]) -> dict[str, str]:
    """Names of what is cached of items that are not published any more, with why.

    Args:
        catalogue: The catalogue.
        going: Names of items that are about to be removed.
    """
    working = FolderStore(catalogue.root)
    listed = {
        f"{one}/{item_id}" for one in catalogue.collections() for item_id in catalogue.item_ids(one)
    }
    segments = {
        PurePosixPath(one).name for one in listed.difference(going) if one.startswith("tiles-")
    }
    found = {}
    for name in _within(working, _within(working, [CACHED_ASSETS])):
        item = name.removeprefix(f"{CACHED_ASSETS}/")
        if item in going or (item not in listed and is_left(catalogue, name)):
            found[name] = "a copy of what is published no more"
    for name in _within(working, _within(working, [CACHED_FEATURES])):
        if PurePosixPath(name).name not in segments:
            found[name] = "features of what is published no more"
    return found


def is_left(catalogue: Catalogue, name: str) -> bool:
    """Whether nothing needs what lies in the working folder."""
    folder, item_id = name.rsplit("/", 1)
    if folder.startswith(CACHED_ASSETS):
        return not catalogue.is_published(PurePosixPath(folder).name, item_id)
    if folder.startswith(CACHED_FEATURES):
        sensors = [one for one in catalogue.collections() if one.startswith("tiles-")]
        return not any(catalogue.is_published(one, item_id) for one in sensors)
    if is_planned(catalogue, item_id):
        return False
    settled = time.time() - SETTLED_SECONDS
    return folder == PLANS or FolderStore(catalogue.root).modified(name) <= settled


def _within(working: FolderStore, folders: Iterable[str]) -> Iterator[str]:
    return (f"{folder}/{name}" for folder in folders for name in working.names(folder))
