"""Where a catalogue's records and files lie: a bucket of an object store that speaks S3."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import obstore
import zarr
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from data_catalog import stac
from data_catalog.asset_files import files_in
from data_catalog.catalogue_address import (
    CACHED_ASSETS,
    bucket_and_prefix,
    endpoint,
    working_folder,
)
from data_catalog.errors import CatalogueError
from data_catalog.leases import LEASE
from data_catalog.redaction import redacted

TRANSFERS = 8
"""Files that are copied at once."""

ATTEMPTS = 50
"""How often a record that others change all the time is tried to be changed."""

_RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


class BucketStore:
    """A catalogue's records and files in a bucket, as ``FolderStore`` has them in a folder.

    Nothing can be locked there. A record is only replaced as long as it is what it was when it was
    read, and the files of every publication get a folder of their own.

    Attributes:
        folder: The working folder on this machine: what is staged, and copies of what is published.
        has_locks: False.
    """

    has_locks = False

    def __init__(self, address: str) -> None:
        """Connects to the bucket; credentials, endpoint and region come from AWS_* variables.

        Raises:
            CatalogueError: The address is malformed, or there are no credentials.
        """
        self._bucket, self._prefix = bucket_and_prefix(address)
        self._address = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        if not any(os.environ.get(name) for name in _CREDENTIALS):
            raise CatalogueError(
                f"There are no credentials for {self}: set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket."
            )
        self.folder = working_folder(address)
        self._store = self._connected("")
        self._subfolders: dict[str, str] = {}

    def __str__(self) -> str:
        return self._address

    @property
    def uri(self) -> str:
        """Address of the catalogue."""
        return self._address

    def href(self, name: str) -> str:
        """Address of a file."""
        return f"{self._address}/{name}"

    def lock(self) -> AbstractContextManager[None]:
        """Nothing: others are kept out by what they have to find unchanged."""
        return nullcontext()

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        with self._explained():
            try:
                obstore.head(self._store, name)
                return True
            except FileNotFoundError:
                return any(obstore.list(self._store, name, chunk_size=1))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Reads a record; None where there is none.

        Raises:
            CatalogueError: The file is not JSON, or cannot be read.
        """
        return self._read(name)[0]

    def replace_json(self, name: str, old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
        """Replaces a record in one step, if it still is what it was.

        Args:
            name: The record.
            old: What it was; None for no record.
            new: What it is to be.

        Returns:
            Whether it was replaced.
        """
        found, version = self._read(name)
        if found == new:
            return True
        if found != old:
            return False
        # Of a write that was repeated the first may have arrived.
        return self._write(name, new, version) or self.read_json(name) == new

    def update_json(
        self, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]
    ) -> None:
        """Replaces a record by what becomes of it; anew where another was faster.

        Args:
            name: The record.
            change: Given the record as it is now (None where there is none), returns the new one,
                or raises where it does not apply any more.

        Raises:
            CatalogueError: Others change it all the time.
        """
        for attempt in range(ATTEMPTS):
            old, version = self._read(name)
            new = change(old)
            if new == old or self._write(name, new, version) or self.read_json(name) == new:
                return
            time.sleep(random.uniform(0, min(0.02 * 2**attempt, 1.0)))
        raise CatalogueError(
            f"{self.href(name)} could not be changed: others publish to it all the time, and were "
            f"faster {ATTEMPTS} times. Nothing is lost; run again."
        )

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; none where there is no such folder."""
        with self._explained():
            found = obstore.list_with_delimiter(self._store, _prefix(folder))
        paths = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def keep(self, folder: str, names: Iterable[str]) -> str:
        """Uploads what is staged in a folder to a new place, which is named by chance.

        Args:
            folder: The folder.
            names: The files and folders in it that count: what a run that was cut off has left
                beside them is not uploaded.

        Returns:
            The folder within ``folder`` that they lie in there.
        """
        staged, subfolder = self.folder / folder, uuid4().hex[:16]
        paths = [staged / name for name in names]
        files = [file for path in paths for file in (files_in(path) if path.is_dir() else [path])]

        def upload(path: Path) -> None:
            name = path.relative_to(staged).as_posix()
            with self._explained():
                obstore.put(self._store, f"{folder}/{subfolder}/{name}", path)

        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(upload, files))
        return subfolder

    def published(self, folder: str, subfolder: str) -> None:
        """Takes what was staged, and is published now, for a copy of what is published."""
        copy = self.folder / CACHED_ASSETS / folder / subfolder
        copy.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / folder).rename(copy)

    def local(self, name: str, checksum: str) -> Path:
        """A copy of a published file on this machine, fetched if need be.

        Raises:
            CatalogueError: It is missing or damaged, or the disk is full.
        """
        path = self.folder / CACHED_ASSETS / name
        if not path.exists():
            part = path.with_name(f".{path.name}.{uuid4().hex}.part")
            with stac.writing(path):
                try:
                    found = self._download(name, part)
                    if found != checksum:
                        raise CatalogueError(
                            f"{self.href(name)} has other contents than were published: its "
                            "checksum differs. Restore it."
                        )
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
        return path

    def array(self, folder: str, name: str) -> Path | zarr.storage.ObjectStore[S3Store]:
        """A published Zarr group in an item's folder, to be read where it lies.

        What was staged on this machine is read from here.

        Raises:
            CatalogueError: There is no such item.
        """
        place = f"{folder}/{self._subfolder(folder)}/{name}"
        path = self.folder / CACHED_ASSETS / place
        if path.exists():
            return path
        return zarr.storage.ObjectStore(self._connected(place), read_only=True)

    @contextmanager
    def copied(self, folder: str) -> Iterator[Path]:
        """A copy of a folder as it is in the bucket, for as long as it is looked at.

        Yields:
            The folder that has the copy under the same name.
        """
        with stac.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".copy-", dir=self.folder) as temporary:
            root = Path(temporary)

            def download(name: str) -> None:
                with stac.writing(root / name):
                    self._download(name, root / name)

            with ThreadPoolExecutor(TRANSFERS) as pool:
                list(pool.map(download, [one["path"] for one in self._files(folder)]))
            yield root

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all in it; what is not there is fine."""
        names = [name, *(one["path"] for one in self._files(name))]
        with self._explained():
            obstore.delete(self._store, names)

    def size(self, name: str) -> int:
        """Bytes of a file, or of all files in a folder."""
        return sum(one["size"] for one in self._files(name))

    def modified(self, name: str) -> float:
        """When a file, or anything in a folder, was changed last, in seconds of Unix time."""
        return max((one["last_modified"].timestamp() for one in self._files(name)), default=0.0)

    def check_vacant(self) -> None:
        """Refuses a place that something else lies in.

        Raises:
            CatalogueError: Something does.
        """
        if set(self.names(".")) - {LEASE}:
            raise CatalogueError(
                f"{self} is not empty: a new catalogue needs an empty bucket, or a prefix in it "
                "that nothing begins with."
            )

    def check_writable(self) -> None:
        """Refuses a bucket that nothing can be written to.

        Raises:
            CatalogueError: No object can be made in it, or no file in the working folder.
        """
        name = f".{uuid4().hex}.staged"
        with self._explained():
            obstore.put(self._store, name, b"")
            obstore.delete(self._store, name)
        with stac.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def _subfolder(self, folder: str) -> str:
        if folder not in self._subfolders:
            record = self.read_json(f"{folder}/{PurePosixPath(folder).name}.json")
            if record is None:
                raise CatalogueError(f"{self.href(folder)} holds no item: restore it.")
            href = next(iter(record["assets"].values()))["href"]
            self._subfolders[folder] = PurePosixPath(href).parts[0]
        return self._subfolders[folder]

    def _connected(self, folder: str) -> S3Store:
        prefix = f"{self._prefix}/{folder}".strip("/")
        given: dict[str, Any] = {"endpoint": endpoint()} if endpoint() else {}
        with self._explained():
            return S3Store(self._bucket, prefix=prefix or None, retry_config=_RETRIES, **given)

    def _read(self, name: str) -> tuple[dict[str, Any] | None, str | None]:
        with self._explained():
            try:
                found = obstore.get(self._store, name)
                content = bytes(found.bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None, None
        try:
            return json.loads(content), found.meta["e_tag"]
        except ValueError as error:
            raise CatalogueError(
                f"{self.href(name)} is not valid JSON ({error}): restore it."
            ) from None

    def _write(self, name: str, content: dict[str, Any], version: str | None) -> bool:
        """Whether a record was written; not if it has another version by now."""
        body = json.dumps(content, indent=2).encode()
        with self._explained():
            try:
                obstore.put(
                    self._store,
                    name,
                    body,
                    attributes={"Content-Type": "application/json"},
                    mode={"e_tag": version} if version else "create",
                )
            except (AlreadyExistsError, PreconditionError):
                return False
            except FileNotFoundError:  # removed meanwhile
                if version is None:
                    raise
                return False
        return True

    def _download(self, name: str, path: Path) -> str:
        """Fetches a file; returns its checksum, as ``stac.file_checksum`` gives it."""
        digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(), path.open("wb") as file:
            for chunk in obstore.get(self._store, name).stream():
                content = memoryview(chunk)
                digest.update(content)
                file.write(content)
        return stac.SHA256_MULTIHASH + digest.hexdigest()

    def _files(self, name: str) -> list[Any]:
        with self._explained():
            found = [one for batch in obstore.list(self._store, _prefix(name)) for one in batch]
            if not found:
                try:
                    found = [obstore.head(self._store, name)]
                except FileNotFoundError:
                    return []
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise CatalogueError(
                f"{self} refuses these credentials ({_cause(error)}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_REGION, and what they may do."
            ) from None
        except (BaseError, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and error.errno is not None:
                raise
            raise CatalogueError(
                f"{self} cannot be used ({_cause(error)}): check the bucket's name, "
                "AWS_ENDPOINT_URL, AWS_REGION and the network, and run again. What was published "
                "before is untouched."
            ) from None


def _prefix(folder: str) -> str | None:
    return None if folder == "." else folder


def _cause(error: Exception) -> str:
    """What went wrong, without what a store's answer may repeat of the request."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return code[1] if code else redacted(str(error).partition("\n")[0])[:300]
