"""What an item says of its assets' files: sizes and checksums."""

from __future__ import annotations

import json
from pathlib import Path

import pystac

from data_catalog import stac
from data_catalog.errors import CatalogueError

CHECKSUMS = "checksums"
"""Key of the asset that holds the checksums of folders' files."""

CHECKSUMS_FILE = "checksums.sha256"


def describe_files(item: pystac.Item, folder: Path) -> None:
    """Adds sizes and checksums to an item's assets, which are staged in its folder.

    The file extension has no checksum of a folder, such as a Zarr store: the checksums of its files
    are written to an asset of their own, in the format of ``sha256sum``. Chunks that carry a
    checksum each, as tiles do, are left out: to read them all again would take as long as to write
    them.

    Raises:
        CatalogueError: An asset is missing.
    """
    folders = []
    for key, asset in item.assets.items():
        path = folder / asset.href
        if not path.exists():
            raise CatalogueError(
                f"Asset {key!r} of item {item.id!r} is missing: stage it at {path}, then publish."
            )
        if path.is_dir():
            folders.append(path)
            size = sum(found.stat().st_size for found in files_in(path))
            asset.extra_fields["file:size"] = size
    if folders:
        _write_checksums(folder, folders)
        title = "Checksums of the files in folders, for sha256sum -c"
        item.add_asset(
            CHECKSUMS,
            pystac.Asset(f"./{CHECKSUMS_FILE}", title, None, "text/plain", ["metadata"]),
        )
    for asset in item.assets.values():
        path = folder / asset.href
        if path.is_file():
            asset.extra_fields["file:size"] = path.stat().st_size
            asset.extra_fields["file:checksum"] = stac.file_checksum(path)


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def unchecked_files_in(folder: Path) -> list[Path]:
    """All files in a folder but those of Zarr arrays' chunks that carry checksums, sorted."""
    checked = [
        found.parent / "c" for found in folder.rglob("zarr.json") if _chunks_are_checked(found)
    ]
    return [path for path in files_in(folder) if not any(c in path.parents for c in checked)]


def read_checksums(folder: Path) -> dict[str, str]:
    """Checksums of the files in an item's folders, as ``stac.file_checksum`` gives them, by path.

    Raises:
        CatalogueError: The file of checksums is damaged.
    """
    path = folder / CHECKSUMS_FILE
    checksums = {}
    for line in path.read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise CatalogueError(f"{path} holds {line[:80]!r}, not checksums: restore it.")
        checksums[name] = stac.SHA256_MULTIHASH + digest
    return checksums


def _write_checksums(folder: Path, folders: list[Path]) -> None:
    lines = [
        f"{stac.file_checksum(path)[len(stac.SHA256_MULTIHASH) :]}  "
        f"{path.relative_to(folder).as_posix()}\n"
        for one in folders
        for path in unchecked_files_in(one)
    ]
    (folder / CHECKSUMS_FILE).write_text("".join(lines))


def _chunks_are_checked(array: Path) -> bool:
    """Whether the chunks of a Zarr array, which has this record, carry checksums."""
    return any(
        codec["name"] == "sharding_indexed"
        and any(inner["name"] == "crc32c" for inner in codec["configuration"]["codecs"])
        for codec in json.loads(array.read_bytes()).get("codecs", [])
    )
