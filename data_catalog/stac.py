"""What every STAC record of the catalogue shares: versions, links, extents, and durable files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from data_catalog.errors import CatalogueError

STAC_VERSION = "1.1.0"


def extension(name: str, version: str) -> str:
    """URI of a STAC extension's schema."""
    return f"https://stac-extensions.github.io/{name}/v{version}/schema.json"


EMBEDDINGS = extension("embeddings", "0.0.1")
FILE = extension("file", "2.1.0")
GRID = extension("grid", "1.1.0")
MLM = extension("mlm", "1.5.2")
PROCESSING = extension("processing", "1.2.0")
PROJECTION = extension("projection", "2.0.0")
TABLE = extension("table", "1.2.0")
VERSION = extension("version", "1.2.0")

SHA256_MULTIHASH = "1220"

SYNCING = 16
"""Files that are made durable at once."""


def link(rel: str, href: str, **fields: str) -> dict[str, str]:
    """A link to another STAC record."""
    collections = ("child", "parent", "collection", "root", "emb:source-data")
    media_type = "application/json" if rel in collections else "application/geo+json"
    return {"rel": rel, "href": href, "type": media_type, **fields}


def timestamp(moment: datetime | None = None) -> str:
    """A moment (default: now) as STAC writes it, in UTC."""
    moment = moment or datetime.now(UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def file_checksum(path: Path) -> str:
    """SHA-256 of a file as a multihash in hexadecimal, as the file extension wants it."""
    with path.open("rb") as file:
        return SHA256_MULTIHASH + hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Reads a STAC record.

    Raises:
        CatalogueError: The file is not JSON, or not a JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CatalogueError(f"{path} is not valid JSON ({error}): restore it.") from None
    if not isinstance(content, dict):
        raise CatalogueError(
            f"{path} holds a JSON {type(content).__name__}, but a STAC record is an object: "
            "restore it."
        )
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a STAC record in one step: a reader sees the old or the new one, crash or not.

    Raises:
        CatalogueError: It cannot be written.
    """
    with writing(path), replacing(path) as staged, staged.open("w") as file:
        json.dump(content, file, indent=2)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replaces a file in one step: a reader sees the old or the new one, whole, crash or not.

    Yields:
        Where the new one is to be written, in the same folder, which is made.
    """
    # A name of its own: two writers of one file must not take each other's away.
    staged = path.with_name(f".{path.name}.{uuid4().hex}.staged")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield staged
        sync(staged)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)


def remove_unused(folder: Path, days: float) -> None:
    """Removes a folder's files that nobody has written or touched for so long."""
    oldest = time.time() - days * 86400
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another run may remove it too
            if path.stat().st_mtime < oldest:
                path.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says what to do where writing fails.

    Raises:
        CatalogueError: The disk is full, say, or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        raise CatalogueError(
            f"{path} cannot be written ({error.strerror or error}): make room, or make its folder "
            "writable, and run again. What was published before is untouched, and blocks that "
            "are read already are not read again."
        ) from error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keeps all other processes and threads that lock the same file out while it lasts.

    Raises:
        BlockingIOError: One of them has locked it, and this one is not to wait.
        CatalogueError: The file cannot be made.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def sync(path: Path) -> None:
    """Makes a file, or a folder's list of files, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Makes a folder and all in it durable."""
    # At once: the file system takes what waits for it together.
    with ThreadPoolExecutor(SYNCING) as pool:
        list(pool.map(sync, (folder.parent, folder, *folder.rglob("*"))))
