"""The catalogue: a static STAC catalogue, and the one primitive that publishes into it.

Everything that outlives a run is an item with assets. Assets are immutable; a collection's
``collection.json`` is the pointer that says which items are current, and it is switched last, by an
atomic replace; in a bucket, where nothing can be locked, only if nobody else has switched it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pystac

from data_catalog import stac
from data_catalog.asset_files import describe_files
from data_catalog.catalogue_reading import MODELS, PublishedRecords
from data_catalog.catalogue_records import (
    CATALOGUE_ID,
    ROOT,
    deprecated,
    empty_catalog,
    item_link,
    item_record,
    listed,
    pointer_name,
    record_name,
    with_child,
    with_model_in_use,
    without_child,
)
from data_catalog.claims import (
    LostClaimError,
    check_claim,
    check_not_removed,
    claimed,
    released,
    removal,
)
from data_catalog.errors import CatalogueError
from data_catalog.stac_collections import describe, extent_of
from data_catalog.versions import series_of, settled

__all__ = ["MODELS", "Catalogue"]

SETTLING_ATTEMPTS = 10

CLAIM_ATTEMPTS = 6


class Catalogue(PublishedRecords):
    """A catalogue in a folder or a bucket. Make one with ``Catalogue.create`` or ``open``.

    Attributes:
        store: Where its records and files lie.
        root: Folder on this machine for what is staged and cached: a catalogue's folder is its own.
    """

    @classmethod
    def create(cls, path: str | Path) -> Catalogue:
        """Makes an empty catalogue in a new or empty folder, or where a bucket is empty.

        Raises:
            CatalogueError: The path is a file, or what is there is not empty.
        """
        catalogue = cls(path)
        catalogue.store.check_vacant()
        catalogue.begin()
        return catalogue

    @classmethod
    def open_or_create(cls, path: str | Path) -> Catalogue:
        """Opens the catalogue at a path; where there is none, one that its first content makes.

        Raises:
            CatalogueError: The path holds something else.
        """
        catalogue = cls(path)
        if catalogue.store.exists(ROOT):
            return cls.open(path)
        catalogue.store.check_vacant()
        return catalogue

    @classmethod
    def open(cls, path: str | Path) -> Catalogue:
        """Opens a catalogue: a folder's path, or an address ``s3://bucket/prefix``.

        Raises:
            CatalogueError: There is no rshash catalogue there.
        """
        catalogue = cls(path)
        root = catalogue.store.read_json(ROOT)
        if root is None:
            raise CatalogueError(
                f"{catalogue.store} holds no catalogue (no catalog.json there): check --catalog or "
                "RSHASH_CATALOG, or make a catalogue with `rshash ingest`."
            )
        if root.get("id") != CATALOGUE_ID:
            raise CatalogueError(
                f"{catalogue.store.href(ROOT)} is a STAC catalogue, but not one that rshash "
                f"publishes to (its ID is not {CATALOGUE_ID!r}): name another folder."
            )
        return catalogue

    def begin(self) -> None:
        """Makes the catalogue, empty, unless it is there."""
        if not self.store.exists(ROOT):
            self.store.update_json(ROOT, lambda root: root or empty_catalog())

    def check_writable(self) -> None:
        """Refuses a catalogue that nothing can be published to.

        Raises:
            CatalogueError: No file can be made in its folder, or where that is to be made.
        """
        self.store.check_writable()

    def asset_folder(self, collection_id: str, item_id: str) -> Path:
        """The folder to stage an item's assets in, made if need be; a half-done one is kept.

        Raises:
            CatalogueError: The item is published already: its assets are immutable.
        """
        self._check_unpublished(collection_id, item_id)
        self.begin()
        folder = self.root / collection_id / item_id
        with stac.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(
        self,
        collection_id: str,
        item: pystac.Item,
        verify: Callable[[Path], None] | None = None,
        supersedes: str | None = None,
    ) -> None:
        """Publishes an item whose assets are staged in its ``asset_folder``.

        The assets are made durable and verified, then the item is written, then the collection's
        pointer is switched. A crash at any point leaves what was published readable.

        Args:
            collection_id: The collection, made if need be.
            item: The item; the hrefs of its assets are relative to its folder. Sizes and checksums
                are added.
            verify: Called with the folder before anything points to it; raises to refuse it.
            supersedes: ID of the current item that this is a new version of.

        Raises:
            CatalogueError: The item is published already, an asset is missing, or another run has
                superseded the same item meanwhile.
        """
        folder = f"{collection_id}/{item.id}"
        self._check_unpublished(collection_id, item.id)
        with stac.writing(self.root / folder):
            describe_files(item, self.root / folder)
        if verify is not None:
            verify(self.root / folder)
        with stac.writing(self.root / folder):
            names = [asset.href for asset in item.assets.values()]
            subfolder = self.store.keep(folder, names)
        with self.store.lock():
            for attempt in range(CLAIM_ATTEMPTS):
                try:
                    self._commit(collection_id, item, supersedes, subfolder)
                    break
                except LostClaimError:
                    if attempt == CLAIM_ATTEMPTS - 1:
                        raise
                    # Two that take each other's claims away would both lose.
                    time.sleep(random.uniform(0, 0.1 * 2**attempt))
            self._settle(collection_id, item.id)
        self.store.published(folder, subfolder)

    def _commit(
        self, collection_id: str, item: pystac.Item, supersedes: str | None, subfolder: str
    ) -> None:
        """Writes an item's record and lists it.

        Whoever claimed it before has read the item's record before, and cannot replace this one;
        whoever claims it later keeps this one from being listed.
        """
        self._check_unpublished(collection_id, item.id)
        name = record_name(collection_id, item.id)
        before = self.store.read_json(name)
        claim = self._claim(collection_id, item, supersedes)
        record = item_record(item, collection_id, supersedes, subfolder, claim)
        if not self.store.replace_json(name, before, record):
            check_claim(None, item.id, claim)
        if supersedes is not None:
            # First, so that it is known as published at any moment.
            self._deprecate(collection_id, supersedes)
        self._switch_pointer(collection_id, item, supersedes, claim)

    def roll_back(self, collection_id: str, item_id: str) -> str:
        """Makes an older version current again, in place of the one that is.

        Returns:
            The version that it takes the place of.

        Raises:
            CatalogueError: It is not published, or current already.
        """
        with self.store.lock():
            self.item(collection_id, item_id)
            item_ids = self.item_ids(collection_id)
            current = [one for one in item_ids if series_of(one) == series_of(item_id)]
            if current == [item_id] or not current:
                raise CatalogueError(f"Item {item_id!r} of {collection_id!r} is current already.")
            self._deprecate(collection_id, current[0])
            try:
                self._relist(collection_id, current[0], [item_id])
            finally:
                self._settle(collection_id, item_id)
        return current[0]

    def use_model(self, model_id: str, check: Callable[[], None]) -> None:
        """Makes another model the one in use, in one step.

        Args:
            model_id: The model.
            check: Raises to refuse it; where the store can be locked, nothing is published
                meanwhile.

        Raises:
            CatalogueError: It is not published.
        """

        def change(record: dict[str, Any] | None) -> dict[str, Any]:
            check()
            return with_model_in_use(record, model_id)

        with self.store.lock():
            self.store.update_json(pointer_name(MODELS), change)

    def _relist(self, collection_id: str, item_id: str, others: list[str]) -> None:
        """Switches a collection's pointer from one item to other published ones."""

        def change(record: dict[str, Any] | None) -> dict[str, Any]:
            _check_current(record, item_id, collection_id)
            assert record is not None
            for other in others:
                check_not_removed(record, other)
                # Where nothing can be locked, it may be gone since it was looked for.
                self.item(collection_id, other)
            links = [link for link in record["links"] if link["rel"] != "item"]
            item_ids = [
                new for one in listed(record) for new in (others if one == item_id else [one])
            ]
            links += map(item_link, item_ids)
            # What is removed goes in many steps, each of which would read all of the others.
            extent = self._extent(collection_id, item_ids) if others else None
            return {**record, "links": links, "extent": extent or record["extent"]}

        self.store.update_json(pointer_name(collection_id), change)

    def _extent(self, collection_id: str, item_ids: list[str]) -> dict[str, Any] | None:
        """Extent of published items; None where one is damaged, which keeps no other from use."""
        try:
            return extent_of([self._read(collection_id, item_id) for item_id in item_ids])
        except CatalogueError:
            return None

    def withdraw(self, collection_id: str, item_id: str) -> None:
        """Takes an item out of the catalogue, inside of the store's lock; its files stay behind."""
        item_ids = self.item_ids(collection_id)
        if item_ids == [item_id] and self.store.has_locks:
            self.store.update_json(ROOT, lambda root: without_child(root, collection_id))
            self.store.remove(pointer_name(collection_id))
        elif item_id in item_ids:
            self._relist(collection_id, item_id, [])
        self._settle(collection_id, item_id, without=item_id)
        self.store.remove(record_name(collection_id, item_id))

    @contextmanager
    def removing(self, collection_id: str, item_id: str) -> Iterator[None]:
        """Keeps an item from being published, or current again, while it is removed."""
        name = pointer_name(collection_id)
        if self.store.has_locks or not self.store.exists(name):
            yield
            return
        self.store.update_json(name, lambda old: claimed(old or {}, item_id, removal()))
        yield
        self.store.update_json(name, lambda old: released(old or {}, item_id, old))

    def _settle(self, collection_id: str, item_id: str, without: str | None = None) -> None:
        """Lets all versions of an item say which is current."""
        names = {
            one: record_name(collection_id, one)
            for one in self.versions(collection_id, item_id)
            if one != without
        }
        for _ in range(SETTLING_ATTEMPTS):
            records = {one: self.store.read_json(name) or {} for one, name in names.items()}
            # Read last: who switches it later has yet to settle, and mends what is out of date.
            current = next((one for one in self.item_ids(collection_id) if one in records), None)
            if all(
                self.store.replace_json(names[one], records[one], record)
                for one, record in settled(records, current).items()
            ):
                break

    def _claim(self, collection_id: str, item: pystac.Item, supersedes: str | None) -> str | None:
        """Makes the collection if need be; claims the item in it where nothing can be locked."""
        claim = None if self.store.has_locks else uuid4().hex

        def change(old: dict[str, Any] | None) -> dict[str, Any]:
            _check_current(old, supersedes, collection_id)
            check_not_removed(old, item.id)
            if item.id in listed(old):
                raise _published_already(collection_id, item.id)
            record = old or describe(collection_id, item, old, [])
            return claimed(record, item.id, claim) if claim else record

        is_new = collection_id not in self.collections()
        if is_new or claim or supersedes:
            self.store.update_json(pointer_name(collection_id), change)
        if is_new:
            # A reader never follows a link to nothing: the collection is there before it is linked.
            self.store.update_json(ROOT, lambda root: with_child(root, collection_id))
        return claim

    def _switch_pointer(
        self, collection_id: str, item: pystac.Item, supersedes: str | None, claim: str | None
    ) -> None:
        def change(old: dict[str, Any] | None) -> dict[str, Any]:
            _check_current(old, supersedes, collection_id)
            check_claim(old, item.id, claim)
            current = [one for one in listed(old) if one != supersedes]
            return released(
                describe(collection_id, item, old, [*current, item.id]), item.id, before=old
            )

        self.store.update_json(pointer_name(collection_id), change)

    def _deprecate(self, collection_id: str, item_id: str) -> None:
        name = record_name(collection_id, item_id)
        if self.store.exists(name):
            self.store.update_json(name, deprecated)

    def _check_unpublished(self, collection_id: str, item_id: str) -> None:
        if self.is_published(collection_id, item_id):
            raise _published_already(collection_id, item_id)


def _published_already(collection_id: str, item_id: str) -> CatalogueError:
    return CatalogueError(
        f"Item {item_id!r} is published already in {collection_id!r}, and what is "
        "published is never changed: publish under a new ID."
    )


def _check_current(pointer: dict[str, Any] | None, item_id: str | None, collection_id: str) -> None:
    if item_id is not None and item_id not in listed(pointer):
        raise CatalogueError(
            f"Item {item_id!r} is no longer current in {collection_id!r}: another run has "
            "published a newer version meanwhile. Run again on top of that."
        )
