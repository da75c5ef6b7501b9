"""The catalogue: a static STAC catalogue in a folder, and the one primitive that publishes into it.

Everything that outlives a run is an item with assets. Assets are immutable; a collection's
``collection.json`` is the pointer that says which items are current, and it is switched last, by an
atomic replace.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystac
from pystac.errors import DeprecatedWarning

from data_catalog import stac
from data_catalog.asset_files import describe_files
from data_catalog.catalogue_records import (
    CATALOGUE_ID,
    ROOT,
    content_row,
    empty_catalog,
    item_link,
    item_record,
    listed,
    pointer_name,
    record_name,
    with_child,
    without_child,
)
from data_catalog.errors import CatalogueError
from data_catalog.stac_collections import describe
from data_catalog.store import FolderStore
from data_catalog.versions import in_order, series_of, settled

MODELS = "models"


class Catalogue:
    """A catalogue in a folder. Make one with ``Catalogue.create`` or ``Catalogue.open``.

    Attributes:
        store: Where its records and files lie.
        root: The folder, absolute.
    """

    def __init__(self, root: Path):
        self.store = FolderStore(root)
        self.root = root

    @classmethod
    def create(cls, path: str | Path) -> Catalogue:
        """Makes an empty catalogue in a new or empty folder.

        Raises:
            CatalogueError: The path is a file, or a folder that is not empty.
        """
        catalogue = cls(_vacant(path))
        catalogue.begin()
        return catalogue

    @classmethod
    def open_or_create(cls, path: str | Path) -> Catalogue:
        """Opens the catalogue at a path; where there is none, one that its first content makes.

        Raises:
            CatalogueError: The path holds something else.
        """
        root = Path(path).expanduser().resolve()
        return cls.open(root) if (root / "catalog.json").exists() else cls(_vacant(root))

    @classmethod
    def open(cls, path: str | Path) -> Catalogue:
        """Opens a catalogue.

        Raises:
            CatalogueError: There is no rshash catalogue at the path.
        """
        root = Path(path).expanduser().resolve()
        pointer = root / "catalog.json"
        if not pointer.is_file():
            raise CatalogueError(
                f"{root} holds no catalogue (no catalog.json there): check --catalog or "
                "RSHASH_CATALOG, or make a catalogue with `rshash ingest`."
            )
        if stac.read_json(pointer).get("id") != CATALOGUE_ID:
            raise CatalogueError(
                f"{pointer} is a STAC catalogue, but not one that rshash publishes to "
                f"(its ID is not {CATALOGUE_ID!r}): name another folder."
            )
        return cls(root)

    def begin(self) -> None:
        """Makes the catalogue, empty, unless it is there."""
        if not self.store.exists(ROOT):
            self.store.write_json(ROOT, empty_catalog())

    def check_writable(self) -> None:
        """Refuses a catalogue that nothing can be published to.

        Raises:
            CatalogueError: No file can be made in its folder, or where that is to be made.
        """
        self.store.check_writable()

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
                f"Collection {collection_id!r} is not in {self.root}: published there: {published}."
            )
        href = self.root / pointer_name(collection_id)
        return pystac.Collection.from_dict(record, href=str(href))

    def item_ids(self, collection_id: str) -> list[str]:
        """IDs of a collection's current items, oldest first; empty where nothing is published."""
        return listed(self.store.read_json(pointer_name(collection_id)))

    def items(self, collection_id: str) -> list[pystac.Item]:
        """A collection's current items, oldest first; empty where nothing is published."""
        # Not by ``item``: one that is superseded since it was listed is still all there.
        return [self._read(collection_id, item_id) for item_id in self.item_ids(collection_id)]

    def item(self, collection_id: str, item_id: str) -> pystac.Item:
        """One published item, current or superseded; ``asset.get_absolute_href()`` is a path.

        Raises:
            CatalogueError: No such item is published.
        """
        if not self.is_published(collection_id, item_id):
            current = ", ".join(self.item_ids(collection_id)[-5:]) or "nothing"
            raise CatalogueError(
                f"Item {item_id!r} is not published in {collection_id!r} of {self.root}: "
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
            f"Nothing in {self.root} is called {item_id!r}: `rshash catalog list` tells what is "
            "published."
        )

    def latest_model_id(self) -> str | None:
        """ID of the model that was published last; None where there is none."""
        models = self.model_ids()
        return models[-1] if models else None

    def model_ids(self) -> list[str]:
        """IDs of the published models, oldest first."""
        return self.item_ids(MODELS)

    def model_id(self, model_id: str | None = None) -> str:
        """The ID of a published model: the one asked for, or without an ID the latest.

        Raises:
            CatalogueError: No such model is published.
        """
        published = self.model_ids()
        if not published:
            raise CatalogueError(
                f"No model is published in {self.root}: train one with `rshash train`."
            )
        if model_id is not None and model_id not in published:
            raise CatalogueError(
                f"Model {model_id!r} is not published in {self.root}: "
                f"there is {', '.join(published[-5:])}."
            )
        return model_id or published[-1]

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
            self.store.keep(folder)
        if verify is not None:
            verify(self.root / folder)
        with self.store.lock():
            self._check_unpublished(collection_id, item.id)
            self._check_current(collection_id, supersedes)
            record = item_record(item, collection_id, supersedes)
            self.store.write_json(record_name(collection_id, item.id), record)
            if supersedes is not None:
                # First, so that it is known as published at any moment.
                self._deprecate(collection_id, supersedes)
            self._switch_pointer(collection_id, item, supersedes)
            self._settle(collection_id, item.id)

    def roll_back(self, collection_id: str, item_id: str) -> str:
        """Makes an older version current again, in place of the one that is.

        Returns:
            The version that it takes the place of.

        Raises:
            CatalogueError: It is not published, or current already.
        """
        self.item(collection_id, item_id)
        with self.store.lock():
            item_ids = self.item_ids(collection_id)
            current = [one for one in item_ids if series_of(one) == series_of(item_id)]
            if current == [item_id] or not current:
                raise CatalogueError(f"Item {item_id!r} of {collection_id!r} is current already.")
            self._deprecate(collection_id, current[0])
            self._relist(collection_id, [item_id if one == current[0] else one for one in item_ids])
            self._settle(collection_id, item_id)
        return current[0]

    def _relist(self, collection_id: str, item_ids: list[str]) -> None:
        """Switches a collection's pointer to other published items."""

        def change(record: dict[str, Any] | None) -> dict[str, Any]:
            assert record is not None
            links = [link for link in record["links"] if link["rel"] != "item"]
            return {**record, "links": [*links, *map(item_link, item_ids)]}

        self.store.update_json(pointer_name(collection_id), change)

    def withdraw(self, collection_id: str, item_id: str) -> None:
        """Takes an item out of the catalogue, inside of the store's lock; its files stay behind."""
        item_ids = self.item_ids(collection_id)
        if item_ids == [item_id]:
            self.store.update_json(ROOT, lambda root: without_child(root, collection_id))
            self.store.remove(pointer_name(collection_id))
        elif item_id in item_ids:
            self._relist(collection_id, [one for one in item_ids if one != item_id])
        self._settle(collection_id, item_id, without=item_id)
        self.store.remove(record_name(collection_id, item_id))

    def _settle(self, collection_id: str, item_id: str, without: str | None = None) -> None:
        """Lets all versions of an item say which is current."""
        names = {
            one: record_name(collection_id, one)
            for one in self.versions(collection_id, item_id)
            if one != without
        }
        records = {one: self.store.read_json(name) or {} for one, name in names.items()}
        current = next((one for one in self.item_ids(collection_id) if one in records), None)
        for one, record in settled(records, current).items():
            self.store.write_json(names[one], record)

    def contents(self) -> list[dict[str, Any]]:
        """What is published: a row per current item.

        Returns:
            Rows of collection, item, version, rows, bits, published (when), size (bytes) and file
            (path of its first asset); None where a column does not apply.
        """
        return [
            content_row(collection_id, item)
            for collection_id in self.collections()
            for item in self.items(collection_id)
        ]

    def _read(self, collection_id: str, item_id: str) -> pystac.Item:
        name = record_name(collection_id, item_id)
        record = self.store.read_json(name)
        if record is None:
            raise CatalogueError(
                f"{self.root / name} is missing, though {collection_id} lists it: restore it; "
                "`rshash catalog verify` tells what else is broken."
            )
        with warnings.catch_warnings():
            # Who reads a version that another one followed has asked for it.
            warnings.simplefilter("ignore", DeprecatedWarning)
            return pystac.Item.from_dict(record, href=str(self.root / name))

    def _switch_pointer(
        self, collection_id: str, item: pystac.Item, supersedes: str | None
    ) -> None:
        def change(old: dict[str, Any] | None, *new: str) -> dict[str, Any]:
            current = [one for one in listed(old) if one != supersedes]
            return describe(collection_id, item, old, [*current, *new])

        if collection_id not in self.collections():
            # A reader never follows a link to nothing: the collection is there before it is linked.
            self.store.update_json(pointer_name(collection_id), change)
            self.store.update_json(ROOT, lambda root: with_child(root, collection_id))
        self.store.update_json(pointer_name(collection_id), lambda old: change(old, item.id))

    def _deprecate(self, collection_id: str, item_id: str) -> None:
        name = record_name(collection_id, item_id)
        record = self.store.read_json(name)
        if record is not None:
            record["properties"]["deprecated"] = True
            self.store.write_json(name, record)

    def _check_unpublished(self, collection_id: str, item_id: str) -> None:
        if self.is_published(collection_id, item_id):
            raise CatalogueError(
                f"Item {item_id!r} is published already in {collection_id!r}, and what is "
                "published is never changed: publish under a new ID."
            )

    def _check_current(self, collection_id: str, item_id: str | None) -> None:
        if item_id is not None and item_id not in self.item_ids(collection_id):
            raise CatalogueError(
                f"Item {item_id!r} is no longer current in {collection_id!r}: another run has "
                "published a newer version meanwhile. Run again on top of that."
            )


def _vacant(path: str | Path) -> Path:
    root = Path(path).expanduser().resolve()
    if root.exists() and (not root.is_dir() or any(map(_is_content, root.iterdir()))):
        raise CatalogueError(
            f"{root} is not an empty folder: a new catalogue needs an empty or a new one."
        )
    return root


def _is_content(path: Path) -> bool:
    # A run that was killed while it made the catalogue leaves what it had staged.
    return not (path.name.startswith(".catalog.json.") and path.suffix == ".staged")
