"""The catalogue: a static STAC catalogue in a folder, and the one primitive that publishes into it.

Everything that outlives a run is an item with assets. Assets are immutable; a collection's
``collection.json`` is the pointer that says which items are current, and it is switched last, by an
atomic replace.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pystac
from pystac.errors import DeprecatedWarning

from data_catalog import stac
from data_catalog.errors import CatalogueError
from data_catalog.stac_collections import describe

CATALOGUE_ID = "rshash"
MODELS = "models"


class Catalogue:
    """A catalogue in a folder. Make one with ``Catalogue.create`` or ``Catalogue.open``.

    Attributes:
        root: The folder, absolute.
    """

    def __init__(self, root: Path):
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
        if not (self.root / "catalog.json").exists():
            self.root.mkdir(parents=True, exist_ok=True)
            stac.write_json(self.root / "catalog.json", _empty_catalog())

    def check_writable(self) -> None:
        """Refuses a catalogue that nothing can be published to.

        Raises:
            CatalogueError: No file can be made in its folder, or where that is to be made.
        """
        folder = next(path for path in (self.root, *self.root.parents) if path.exists())
        try:
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise CatalogueError(
                f"Nothing can be published to {self.root} ({error.strerror}): make {folder} "
                "writable, or name another folder with --catalog."
            ) from error

    def collections(self) -> list[str]:
        """IDs of the collections, in the order of their first publication."""
        if not (self.root / "catalog.json").exists():
            return []
        links = stac.read_json(self.root / "catalog.json")["links"]
        return [Path(link["href"]).parent.name for link in links if link["rel"] == "child"]

    def collection(self, collection_id: str) -> pystac.Collection:
        """One collection as it is published.

        Raises:
            CatalogueError: There is no such collection.
        """
        return pystac.Collection.from_dict(
            self._pointer(collection_id), href=str(self._pointer_path(collection_id))
        )

    def item_ids(self, collection_id: str) -> list[str]:
        """IDs of a collection's current items, oldest first; empty where nothing is published."""
        if not self._pointer_path(collection_id).exists():
            return []
        return _listed(self._pointer(collection_id))

    def items(self, collection_id: str) -> list[pystac.Item]:
        """A collection's current items, oldest first; empty where nothing is published."""
        # Not by ``item``: one that is superseded since it was listed is still all there.
        return [self._read(collection_id, item_id) for item_id in self.item_ids(collection_id)]

    def item(self, collection_id: str, item_id: str) -> pystac.Item:
        """One published item, current or superseded; ``asset.get_absolute_href()`` is a path.

        Raises:
            CatalogueError: No such item is published.
        """
        if not self._is_published(collection_id, item_id):
            current = ", ".join(self.item_ids(collection_id)[-5:]) or "nothing"
            raise CatalogueError(
                f"Item {item_id!r} is not published in {collection_id!r} of {self.root}: "
                f"there is {current}."
            )
        return self._read(collection_id, item_id)

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
        folder = self.root / collection_id / item.id
        self._check_unpublished(collection_id, item.id)
        _describe_files(item, folder)
        stac.sync_tree(folder)
        if verify is not None:
            verify(folder)
        with stac.locked(self.root / ".lock"):
            self._check_unpublished(collection_id, item.id)
            self._check_current(collection_id, supersedes)
            record = _item_record(item, collection_id, supersedes)
            stac.write_json(self._item_path(collection_id, item.id), record)
            self._switch_pointer(collection_id, item, supersedes)
            if supersedes is not None:
                self._deprecate(collection_id, supersedes, successor=item.id)

    def contents(self) -> list[dict[str, Any]]:
        """What is published: a row per current item.

        Returns:
            Rows of collection, item, version, rows, bits, published (when), size (bytes) and file
            (path of its first asset); None where a column does not apply.
        """
        return [
            _row(collection_id, item)
            for collection_id in self.collections()
            for item in self.items(collection_id)
        ]

    def _read(self, collection_id: str, item_id: str) -> pystac.Item:
        path = self._item_path(collection_id, item_id)
        with warnings.catch_warnings():
            # Who reads a version that another one followed has asked for it.
            warnings.simplefilter("ignore", DeprecatedWarning)
            return pystac.Item.from_dict(stac.read_json(path), href=str(path))

    def _switch_pointer(
        self, collection_id: str, item: pystac.Item, supersedes: str | None
    ) -> None:
        path = self._pointer_path(collection_id)
        old = stac.read_json(path) if path.exists() else None
        current = [i for i in (_listed(old) if old else []) if i != supersedes]
        if collection_id not in self.collections():
            # A reader never follows a link to nothing: the collection is there before it is linked.
            stac.write_json(path, describe(collection_id, item, old, current))
            catalog = stac.read_json(self.root / "catalog.json")
            catalog["links"].append(stac.link("child", f"./{collection_id}/collection.json"))
            stac.write_json(self.root / "catalog.json", catalog)
        stac.write_json(path, describe(collection_id, item, old, [*current, item.id]))

    def _deprecate(self, collection_id: str, item_id: str, successor: str) -> None:
        # Walks on to older versions, which a crash right after a switch may have left unmarked.
        while item_id and (path := self._item_path(collection_id, item_id)).exists():
            record = stac.read_json(path)
            if record["properties"].get("deprecated"):
                return
            record["properties"]["deprecated"] = True
            record["links"].append(_version_link("successor-version", successor))
            stac.write_json(path, record)
            older = [k for k in record["links"] if k["rel"] == "predecessor-version"]
            successor, item_id = item_id, Path(older[0]["href"]).stem if older else ""

    def _is_published(self, collection_id: str, item_id: str) -> bool:
        path = self._item_path(collection_id, item_id)
        return item_id in self.item_ids(collection_id) or (
            path.exists() and stac.read_json(path)["properties"].get("deprecated", False)
        )

    def _check_unpublished(self, collection_id: str, item_id: str) -> None:
        if self._is_published(collection_id, item_id):
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

    def _pointer(self, collection_id: str) -> dict[str, Any]:
        path = self._pointer_path(collection_id)
        if not path.exists():
            published = ", ".join(self.collections()) or "nothing yet"
            raise CatalogueError(
                f"Collection {collection_id!r} is not in {self.root}: published there: {published}."
            )
        return stac.read_json(path)

    def _pointer_path(self, collection_id: str) -> Path:
        return self.root / collection_id / "collection.json"

    def _item_path(self, collection_id: str, item_id: str) -> Path:
        return self.root / collection_id / item_id / f"{item_id}.json"


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


def _empty_catalog() -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": stac.STAC_VERSION,
        "id": CATALOGUE_ID,
        "title": "Hash codes of satellite imagery",
        "description": "Observed tiles, trained models and the hash codes of every tile.",
        "links": [stac.link("root", "./catalog.json")],
    }


def _item_record(item: pystac.Item, collection_id: str, supersedes: str | None) -> dict[str, Any]:
    record = item.to_dict(include_self_link=False, transform_hrefs=False)
    ours = {"root", "parent", "collection", "predecessor-version"}
    record["links"] = [link for link in record["links"] if link["rel"] not in ours]
    record["links"] += [
        stac.link("root", "../../catalog.json"),
        stac.link("parent", "../collection.json"),
        stac.link("collection", "../collection.json"),
    ]
    if supersedes is not None:
        record["links"].append(_version_link("predecessor-version", supersedes))
    record["collection"] = collection_id
    record["properties"].setdefault("created", stac.timestamp())
    record["properties"].setdefault("version", "1")
    for uri in (stac.FILE, stac.VERSION):
        if uri not in record["stac_extensions"]:
            record["stac_extensions"].append(uri)
    return record


def _describe_files(item: pystac.Item, folder: Path) -> None:
    for key, asset in item.assets.items():
        path = folder / asset.href
        if not path.exists():
            raise CatalogueError(
                f"Asset {key!r} of item {item.id!r} is missing: stage it at {path}, then publish."
            )
        if path.is_dir():
            size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        else:
            size = path.stat().st_size
            asset.extra_fields["file:checksum"] = stac.file_checksum(path)
        asset.extra_fields["file:size"] = size


def _row(collection_id: str, item: pystac.Item) -> dict[str, Any]:
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
    }


def _version_link(rel: str, item_id: str) -> dict[str, str]:
    return stac.link(rel, f"../{item_id}/{item_id}.json")


def _listed(pointer: dict[str, Any]) -> list[str]:
    return [Path(link["href"]).stem for link in pointer["links"] if link["rel"] == "item"]
