"""What a catalogue's working folder on this machine can do without: what no run came back to."""

from __future__ import annotations

import time
from collections.abc import Iterator

from data_catalog.catalogue import Catalogue
from data_catalog.orphans import KINDS, SETTLED_SECONDS, is_planned
from data_catalog.planning import PLANS
from data_catalog.store import FolderStore


def leftovers(catalogue: Catalogue) -> dict[str, str]:
    """Names in the working folder that nothing needs, with why."""
    found = {name: why_left(catalogue, name) for name in _candidates(catalogue)}
    return {name: why for name, why in found.items() if why}


def why_left(catalogue: Catalogue, name: str) -> str | None:
    """Why nothing needs what lies in the working folder; None where something may."""
    folder, _, item_id = name.partition("/")
    if is_planned(catalogue, item_id):
        return None
    if folder == PLANS:
        return "a plan that no run came back to"
    changed = FolderStore(catalogue.root).modified(name)
    return "staged on this machine" if changed <= time.time() - SETTLED_SECONDS else None


def _candidates(catalogue: Catalogue) -> Iterator[str]:
    working = FolderStore(catalogue.root)
    folders = [PLANS]
    if not catalogue.store.has_locks:
        # What is staged for a bucket is no part of it: none of this is published.
        folders += [name for name in working.names(".") if name.startswith(KINDS)]
    for folder in folders:
        yield from (f"{folder}/{name}" for name in working.names(folder))
