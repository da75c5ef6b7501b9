"""Checks that what is published is all there, and is what was published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from data_catalog import stac
from data_catalog.asset_files import CHECKSUMS, read_checksums, unchecked_files_in
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.catalogue_records import (
    ROOT,
    listed,
    model_in_use,
    pointer_name,
    record_name,
)
from data_catalog.errors import CatalogueError
from data_catalog.segments import open_pixels
from data_catalog.stac_items import PARQUET, ZARR

DESCRIBED = {
    "model_id": "rshash:model",
    "bits": "rshash:bits",
    "primary_sensor": "rshash:sensor",
    "tile_size": "rshash:tile_size",
}
"""What a model's description and its item both say."""


@dataclass(frozen=True)
class Fault:
    """Something broken.

    Attributes:
        file: Its path in the catalogue.
        problem: What was expected and what was found.
    """

    file: str
    problem: str


def verify(
    catalogue: Catalogue,
    item_id: str | None = None,
    checked: Callable[[int, int], None] = lambda done, total: None,
) -> list[Fault]:
    """Checks items, current and superseded, and all that they lead to.

    Every file is there with the size and checksum it was published with; tables are readable and
    have the rows and columns that the item says; all valid tiles can be read from their arrays;
    links within the catalogue lead somewhere.

    Args:
        catalogue: The catalogue.
        item_id: Just this item; None for everything.
        checked: Called after every item with how many are checked, of how many.

    Returns:
        What is broken; nothing is changed.

    Raises:
        CatalogueError: There is no such item.
    """
    faults: list[Fault] = []
    if item_id is not None:
        items = [(catalogue.find(item_id), item_id)]
    else:
        items = [
            (collection_id, name)
            for collection_id in _collections(catalogue, faults)
            for name in _published(catalogue, collection_id, faults)
        ]
    for done, (collection_id, name) in enumerate(items, 1):
        found = item_faults(catalogue, collection_id, name)
        if found and name not in catalogue.item_ids(collection_id):
            found = [_of_superseded(fault, record_name(collection_id, name)) for fault in found]
        faults += found
        checked(done, len(items))
    return faults


def item_faults(catalogue: Catalogue, collection_id: str, item_id: str) -> list[Fault]:
    """What is broken of one published item."""
    name = record_name(collection_id, item_id)
    try:
        record = catalogue.store.read_json(name)
        if record is None:
            return [Fault(name, f"is missing, though {collection_id} lists it")]
        catalogue.item(collection_id, item_id)
    except CatalogueError as error:
        return [Fault(name, str(error))]
    faults = [Fault(name, problem) for problem in _dangling(catalogue, name, record)]
    folder = f"{collection_id}/{item_id}"
    with catalogue.store.copied(folder) as root:
        faults += _file_faults(root, folder, record["assets"])
        if collection_id == MODELS and not faults:
            faults += [Fault(name, problem) for problem in _model_problems(root / folder, record)]
    return faults


def _of_superseded(fault: Fault, record: str) -> Fault:
    told = f"{fault.problem}; this version is not current"
    if fault.file != record:
        # Going back mends nothing of it. Without a good record it cannot be removed either.
        told += ": `rshash catalog gc` with `--keep` can remove it"
    return Fault(fault.file, told)


def _model_problems(folder: Path, record: dict[str, Any]) -> Iterator[str]:
    """Where a model's item says something else of it than its own description."""
    model = json.loads((folder / record["assets"]["description"]["href"]).read_bytes())
    for key, field in DESCRIBED.items():
        if record["properties"].get(field) != model[key]:
            found = record["properties"].get(field)
            yield f"says {field} {found!r}, but the model's own description {model[key]!r}"


def _file_faults(root: Path, item_folder: str, assets: dict[str, Any]) -> list[Fault]:
    faults, folder = [], root / item_folder
    for asset in assets.values():
        file = normpath(f"{item_folder}/{asset['href']}")
        folder = (root / file).parent
        faults += [Fault(file, problem) for problem in _asset_problems(root / file, asset)]
    if CHECKSUMS in assets and not faults:
        faults += _folder_faults(root, folder)
    if not faults and any(asset.get("type") == ZARR for asset in assets.values()):
        faults += _array_faults(root, folder)
    return faults


def _collections(catalogue: Catalogue, faults: list[Fault]) -> list[str]:
    try:
        return catalogue.collections()
    except CatalogueError as error:
        faults.append(Fault(ROOT, str(error)))
        return []


def _published(catalogue: Catalogue, collection_id: str, faults: list[Fault]) -> list[str]:
    name = pointer_name(collection_id)
    try:
        pointer = catalogue.store.read_json(name)
    except CatalogueError as error:
        faults.append(Fault(name, str(error)))
        return []
    if pointer is None:
        faults.append(Fault(name, f"is missing, though {ROOT} links it"))
        return []
    faults += [Fault(name, problem) for problem in _dangling(catalogue, name, pointer, "item")]
    in_use = model_in_use(pointer) if collection_id == MODELS else None
    if in_use is not None and in_use not in listed(pointer):
        faults.append(Fault(name, f"says that {in_use} is in use, but does not list it"))
    superseded = set(catalogue.store.names(collection_id)) - set(catalogue.item_ids(collection_id))
    return [
        *catalogue.item_ids(collection_id),
        *sorted(one for one in superseded if _may_be_published(catalogue, collection_id, one)),
    ]


def _may_be_published(catalogue: Catalogue, collection_id: str, item_id: str) -> bool:
    try:
        return catalogue.is_published(collection_id, item_id)
    except CatalogueError:
        return True


def _dangling(
    catalogue: Catalogue, name: str, record: dict[str, Any], but: str | None = None
) -> Iterator[str]:
    folder = name.rpartition("/")[0]
    for link in record["links"]:
        target = normpath(f"{folder}/{link['href']}")
        is_here = link["href"].startswith(".") and link["rel"] != but
        if is_here and not catalogue.store.exists(target):
            yield f"has a link {link['rel']} to {target}, which does not exist"


def _asset_problems(path: Path, asset: dict[str, Any]) -> Iterator[str]:
    if not path.exists():
        yield "is missing"
    elif path.is_file():
        size = path.stat().st_size
        if size != asset["file:size"]:
            yield f"has {size:,} bytes, but was published with {asset['file:size']:,}"
        elif stac.file_checksum(path) != asset["file:checksum"]:
            yield "has other contents than were published: its checksum differs"
        elif asset.get("type") == PARQUET:
            yield from _table_problems(path, asset)


def _table_problems(path: Path, asset: dict[str, Any]) -> Iterator[str]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        yield f"cannot be read as Parquet ({error})"
        return
    rows, said = file.metadata.num_rows, asset.get("table:row_count")
    if said is not None and rows != said:
        yield f"has {rows:,} rows, but its item says {said:,}"
    columns = {(field.name, str(field.type)) for field in file.schema_arrow}
    expected = {(column["name"], column["type"]) for column in asset.get("table:columns", [])}
    if expected and columns != expected:
        differing = sorted({name for name, _ in columns ^ expected})
        yield f"has other columns than its item says: {', '.join(differing)}"


def _folder_faults(root: Path, folder: Path) -> Iterator[Fault]:
    try:
        checksums = read_checksums(folder)
    except CatalogueError as error:
        yield Fault(_within(root, folder), str(error))
        return
    for name, checksum in checksums.items():
        path = folder / name
        if not path.is_file():
            yield Fault(_within(root, path), "is missing")
        elif stac.file_checksum(path) != checksum:
            problem = "has other contents than were published: its checksum differs"
            yield Fault(_within(root, path), problem)
    inner = {name.partition("/")[0] for name in checksums}
    for path in (found for name in inner for found in unchecked_files_in(folder / name)):
        if path.relative_to(folder).as_posix() not in checksums:
            yield Fault(_within(root, path), "was not published, but lies among what was")


def _array_faults(root: Path, folder: Path) -> Iterator[Fault]:
    try:
        array = open_pixels(folder)
    except CatalogueError as error:
        yield Fault(_within(root, folder / "pixels.zarr"), str(error))
        return
    index = pd.read_parquet(folder / "index.parquet", columns=["tile_id", "row", "state"])
    valid = index[index["state"] == "valid"]
    rows = (array.shards or array.chunks)[0]
    for number, tiles in valid.groupby(valid["row"] // rows)["tile_id"]:
        problem = _shard_problem(array, int(number))
        if problem:
            chunk = "/".join([str(number), *"0" * (array.ndim - 1)])
            shard = folder / "pixels.zarr" / array.basename / "c" / chunk
            told = f"{problem}: it holds {len(tiles)} valid tiles, such as {tiles.iloc[0]}"
            yield Fault(_within(root, shard), told)


def _shard_problem(array: zarr.Array[Any], number: int) -> str:
    rows = (array.shards or array.chunks)[0]
    try:
        found = np.any(array[rows * number : rows * (number + 1)])
    except Exception as error:  # Every codec has errors of its own for a damaged shard.
        return f"cannot be read ({error})"
    return "" if found else "is missing"


def _within(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
