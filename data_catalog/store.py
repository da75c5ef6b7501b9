"""Where a catalogue's records and files lie: a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from data_catalog import stac
from data_catalog.errors import CatalogueError


class FolderStore:
    """A catalogue's records and files in a folder.

    Names are relative to it, with ``/``.

    Attributes:
        folder: The folder, absolute.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

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

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replaces a record in one step.

        Raises:
            CatalogueError: It cannot be written.
        """
        stac.write_json(self.folder / name, content)

    def update_json(
        self, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]
    ) -> None:
        """Replaces a record by what becomes of it, in one step, inside of ``lock``.

        Args:
            name: The record.
            change: Given the record as it is now (None where there is none), returns the new one.
        """
        self.write_json(name, change(self.read_json(name)))

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        path = self.folder / folder
        return sorted(found.name for found in path.iterdir()) if path.is_dir() else []

    def keep(self, folder: str) -> None:
        """Makes a folder of staged files durable."""
        stac.sync_tree(self.folder / folder)

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
        path = self.folder / name
        return max(found.stat().st_mtime for found in (path, *path.rglob("*")))

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
