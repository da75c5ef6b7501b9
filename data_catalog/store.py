"""Where a catalogue's records and files lie: a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from data_catalog import stac
from data_catalog.errors import CatalogueError
from data_catalog.nights import LOCK, RUN


class FolderStore:
    """A catalogue's records and files in a folder.

    Names are relative to it, with ``/``.

    Attributes:
        folder: The folder, absolute.
        has_locks: True: others can be kept out.
    """

    has_locks = True

    def __init__(self, folder: Path):
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def uri(self) -> str:
        """Address of the folder."""
        return self.folder.as_uri()

    def href(self, name: str) -> str:
        """Path of a file."""
        return str(self.folder / name)

    def lock(self) -> AbstractContextManager[None]:
        """Keeps all others that lock it from writing records while it lasts."""
        return stac.locked(self.folder / ".lock")

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return (self.folder / name).exists()

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Reads a record; None where there is none.

        Raises:
            CatalogueError: The file is not JSON.
        """
        try:
            return stac.read_json(self.folder / name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace_json(self, name: str, old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
        """Replaces a record in one step, inside of ``lock``.

        Args:
            name: The record.
            old: What it was; None for no record.
            new: What it is to be.

        Returns:
            Whether it was replaced, as nobody else can while it is locked.

        Raises:
            CatalogueError: It cannot be written.
        """
        stac.write_json(self.folder / name, new)
        return True

    def update_json(
        self, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]
    ) -> None:
        """Replaces a record by what becomes of it, in one step, inside of ``lock``.

        Args:
            name: The record.
            change: Given the record as it is now (None where there is none), returns the new one.
        """
        old = self.read_json(name)
        new = change(old)
        if new != old:
            stac.write_json(self.folder / name, new)

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        path = self.folder / folder
        return sorted(found.name for found in path.iterdir()) if path.is_dir() else []

    def keep(self, folder: str, names: Iterable[str]) -> str:
        """Makes what is staged in a folder durable.

        Args:
            folder: The folder.
            names: The files and folders in it that count.

        Returns:
            The folder within ``folder`` that they lie in: none.
        """
        stac.sync_tree(self.folder / folder)
        return ""

    def published(self, folder: str, subfolder: str) -> None:
        """Tells that what was kept is published: nothing is to be done."""

    def local(self, name: str, checksum: str) -> Path:
        """A published file."""
        return self.folder / name

    def array(self, folder: str, name: str) -> Path:
        """A published Zarr group in an item's folder."""
        return self.folder / folder / name

    @contextmanager
    def copied(self, folder: str) -> Iterator[Path]:
        """The folder that has the named one in it, as it is."""
        yield self.folder

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all in it; what is not there is fine."""
        path = self.folder / name
        with stac.writing(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """Bytes of a file, or of all files in a folder."""
        return sum(path.stat().st_size for path in self._files(name))

    def modified(self, name: str) -> float:
        """When a file, or anything in a folder, was changed last, in seconds of Unix time."""
        path, latest = self.folder / name, 0.0
        tree = (Path(folder, one) for folder, _, files in os.walk(path) for one in ("", *files))
        for found in (path, *tree):
            with suppress(FileNotFoundError):  # A run may be at work there.
                latest = max(latest, found.stat().st_mtime)
        return latest

    def check_vacant(self) -> None:
        """Refuses a folder that something else lies in.

        Raises:
            CatalogueError: Something does, or it is a file.
        """
        folder = self.folder
        if folder.exists() and (not folder.is_dir() or any(map(_is_content, folder.iterdir()))):
            raise CatalogueError(
                f"{folder} is not an empty folder: a new catalogue needs an empty or a new one."
            )

    def check_writable(self) -> None:
        """Refuses a folder that nothing can be written to.

        Raises:
            CatalogueError: No file can be made in it, or where it is to be made.
        """
        folder = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        try:
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise CatalogueError(
                f"Nothing can be published to {self.folder} ({error.strerror}): make {folder} "
                "writable, or name another folder with --catalog."
            ) from error

    def _files(self, name: str) -> list[Path]:
        path = self.folder / name
        return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def _is_content(path: Path) -> bool:
    # A night begins before there is a catalogue, and one that was killed while it made the
    # catalogue leaves what it had staged.
    staged = path.name.startswith(".catalog.json.") and path.suffix == ".staged"
    return not staged and path.name not in (RUN, LOCK)
