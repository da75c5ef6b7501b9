"""Reading what is published."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING, Any

import pystac
from pystac.errors import DeprecatedWarning

from data_catalog.catalogue_address import is_in_bucket, working_folder
from data_catalog.catalogue_records import (
    ROOT,
    content_row,
    listed,
    model_in_use,
    pointer_name,
    record_name,
)
from data_catalog.errors import CatalogueError
from data_catalog.store import FolderStore
from data_catalog.versions import in_order, series_of

if TYPE_CHECKING:
    from data_catalog.object_store import BucketStore

MODELS = "models"


class PublishedRecords:
    """The records of a catalogue in a folder or a bucket.

    Attributes:
        store: Where its records and files lie.
        root: Folder on this machine for what is staged and cached: a catalogue's folder is its own.
    """

    def __init__(self, address: str | Path):
        self.store: FolderStore | BucketStore
        if is_in_bucket(address):
            from data_catalog.object_store import BucketStore

            self.store = BucketStore(str(address))
        else:
            self.store = FolderStore(working_folder(address))
        self.root = self.store.folder

    def collections(self) -> list[str]:
        """IDs of the collections, in the order of their first publication."""
        links = (self.store.read_json(ROOT) or {"links": []})["links"]
        return [Path(link["href"]).parent.name for link in links if link["rel"] == "child"]

    def collection(self, collection_id: str) -> pystac.Collection:
        """One collection as it is published.

        Raises:
            CatalogueError: There is no such collection.
        """
        record = self.store.read_json(pointer_name(collection_id))
        if record is None:
            published = ", ".join(self.collections()) or "nothing yet"
            raise CatalogueError(
                f"Collection {collection_id!r} is not in {self.store}: published there: "
                f"{published}."
            )
        href = self.store.href(pointer_name(collection_id))
        return pystac.Collection.from_dict(record, href=href)

    def item_ids(self, collection_id: str) -> list[str]:
        """IDs of a collection's current items, oldest first; empty where nothing is published."""
        return listed(self.store.read_json(pointer_name(collection_id)))

    def items(self, collection_id: str, item_ids: Iterable[str] | None = None) -> list[pystac.Item]:
        """A collection's current items, oldest first; empty where nothing is published.

        Args:
            collection_id: The collection.
            item_ids: Only these, which ``item_ids`` has listed.
        """
        # Not by ``item``: one that is superseded since it was listed is still all there.
        wanted = self.item_ids(collection_id) if item_ids is None else item_ids
        return [self._read(collection_id, item_id) for item_id in wanted]

    def item(self, collection_id: str, item_id: str) -> pystac.Item:
        """One published item, current or superseded; ``asset_path`` leads to its files.

        Raises:
            CatalogueError: No such item is published.
        """
        if not self.is_published(collection_id, item_id):
            current = ", ".join(self.item_ids(collection_id)[-5:]) or "nothing"
            raise CatalogueError(
                f"Item {item_id!r} is not published in {collection_id!r} of {self.store}: "
                f"there is {current}."
            )
        return self._read(collection_id, item_id)

    def is_published(self, collection_id: str, item_id: str) -> bool:
        """Whether an item is published, current or superseded."""
        if item_id in self.item_ids(collection_id):
            return True
        record = self.store.read_json(record_name(collection_id, item_id))
        return record is not None and bool(record["properties"].get("deprecated"))

    def versions(self, collection_id: str, item_id: str) -> list[str]:
        """All published versions of what an item is a version of, oldest first.

        Args:
            collection_id: The collection.
            item_id: One of the versions, which itself need not be published.
        """
        series = series_of(item_id)
        found = [name for name in self.store.names(collection_id) if series_of(name) == series]
        return in_order(name for name in found if self.is_published(collection_id, name))

    def find(self, item_id: str) -> str:
        """The collection that a published item is in.

        Raises:
            CatalogueError: There is no such item.
        """
        for collection_id in self.collections():
            if self.is_published(collection_id, item_id):
                return collection_id
        raise CatalogueError(
            f"Nothing in {self.store} is called {item_id!r}: `rshash catalog list` tells what is "
            "published."
        )

    def latest_model_id(self) -> str | None:
        """ID of the model that was published last; None where there is none."""
        models = self.model_ids()
        return models[-1] if models else None

    def model_in_use(self) -> str | None:
        """ID of the model whose codes answer; None where no model is published.

        It stays the first one until another is switched to.
        """
        return model_in_use(self.store.read_json(pointer_name(MODELS)))

    def model_ids(self) -> list[str]:
        """IDs of the published models, oldest first."""
        return self.item_ids(MODELS)

    def model_id(self, model_id: str | None = None) -> str:
        """The ID of a published model: the one asked for, or without an ID the one in use.

        Raises:
            CatalogueError: No such model is published.
        """
        pointer = self.store.read_json(pointer_name(MODELS))
        published, in_use = listed(pointer), model_in_use(pointer)
        if not published or in_use is None:
            raise CatalogueError(
                f"No model is published in {self.store}: train one with `rshash train`."
            )
        if model_id is not None and model_id not in published:
            raise CatalogueError(
                f"Model {model_id!r} is not published in {self.store}: "
                f"there is {', '.join(published[-5:])}."
            )
        if model_id is None and in_use not in published:
            raise CatalogueError(
                f"The model in use, {in_use}, is not published in {self.store}: restore it, or "
                f"switch to another one with `rshash catalog use {published[-1]}`."
            )
        return model_id or in_use

    def asset_path(self, item: pystac.Item, key: str) -> Path:
        """Path of a published asset, a file; where it is in a bucket, of a copy.

        Raises:
            CatalogueError: It is damaged, or cannot be fetched.
        """
        asset = item.assets[key]
        name = normpath(f"{item.collection_id}/{item.id}/{asset.href}")
        return self.store.local(name, asset.extra_fields["file:checksum"])

    def contents(self) -> list[dict[str, Any]]:
        """What is published: a row per current item.

        Returns:
            Rows of collection, item, version, rows, bits, published (when), size (bytes), file
            (path of its first asset), None where a column does not apply, and in_use: whether it
            is the model in use, or that model's.
        """
        in_use = self.model_in_use()
        return [
            content_row(collection_id, item, in_use)
            for collection_id in self.collections()
            for item in self.items(collection_id)
        ]

    def _read(self, collection_id: str, item_id: str) -> pystac.Item:
        name = record_name(collection_id, item_id)
        record = self.store.read_json(name)
        if record is None:
            raise CatalogueError(
                f"{self.store.href(name)} is missing, though {collection_id} lists it: restore it; "
                "`rshash catalog verify` tells what else is broken."
            )
        with warnings.catch_warnings():
            # Who reads a version that another one followed has asked for it.
            warnings.simplefilter("ignore", DeprecatedWarning)
            try:
                return pystac.Item.from_dict(record, href=self.store.href(name))
            except (pystac.STACError, AttributeError, KeyError, TypeError, ValueError) as error:
                raise CatalogueError(
                    f"{self.store.href(name)} is no STAC item ({error}): restore it, or go back "
                    "to another version with `rshash catalog rollback`."
                ) from error
