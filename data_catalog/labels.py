"""Labels of tiles: from a table that a user gives, and from what the catalogue has published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_table_schema
from data_catalog.errors import GridError
from data_catalog.geoparquet import CORNERS
from data_catalog.grid import parse_tile_id
from data_catalog.land_cover import published_land_cover
from data_catalog.segments import INDEX_SCHEMA
from rshash.codes import MAXIMUM_BITS
from rshash.errors import LabelError
from rshash.labels import TileLabels, labels_from_fractions, labels_from_probabilities

SEPARATOR = ";"
"""Between the classes of one tile, in a text."""

_NO_CLASSES = {
    "geometry",
    "bbox",
    "mapped_fraction",
    "source_maps",
    "segment_id",
    *INDEX_SCHEMA.names,
    *code_table_schema(MAXIMUM_BITS).names,
    *CORNERS,
}
"""Columns that are never classes: those of the tables that are published here."""

_HOW = (
    "a table of labels has a column tile_id, and either label (one class), labels (a list, or "
    f"classes separated by {SEPARATOR!r}), or a column per class, of true and false or of "
    "fractions from 0 to 1"
)


def load_labels(
    catalogue: Catalogue, source: str, tile_ids: Iterable[str], minimum: float
) -> TileLabels:
    """Labels of tiles, from wherever they are.

    Args:
        catalogue: Holds published labels.
        source: ID of a published collection (``labels-<model>`` or ``land-cover-<collection>``), or
            the path of a table as :func:`read_labels` takes it.
        tile_ids: The tiles that can be labelled. Published labels of others are passed over; a
            table may hold no others.
        minimum: Share of a tile, or probability, from which a class counts.

    Raises:
        LabelError: There are no such labels, or they are no good; names table, row and tile ID.
    """
    known = set(tile_ids)
    if source in catalogue.collections():
        return published_labels(catalogue, source, known, minimum)
    if Path(source).is_file():
        return read_labels(Path(source), known, minimum)
    published = [one for one in catalogue.collections() if _holds_labels(one)]
    raise LabelError(
        f"No labels at {source!r}: expected a file, or a published collection of labels "
        f"({', '.join(published) or 'none is published yet'})."
    )


def published_labels(
    catalogue: Catalogue, collection_id: str, tile_ids: Iterable[str], minimum: float
) -> TileLabels:
    """Labels of tiles from a published collection of pseudo-labels or of land cover.

    Args:
        catalogue: Holds the collection.
        collection_id: ``labels-<model>`` or ``land-cover-<collection>``.
        tile_ids: The tiles that are wanted; those without labels are left out.
        minimum: Share or probability from which a class counts.

    Raises:
        CatalogueError: There is no such collection.
        LabelError: The collection holds no labels, none of these tiles, or one class alone.
    """
    if not _holds_labels(collection_id):
        raise LabelError(
            f"Collection {collection_id!r} holds no labels: expected labels-<model> or "
            "land-cover-<collection>."
        )
    catalogue.collection(collection_id)
    if not catalogue.item_ids(collection_id):
        raise LabelError(
            f"Collection {collection_id!r} is empty: its publication was cut off, or `rshash "
            "catalog gc` removed what was in it. Publish labels anew, land cover with `rshash "
            "train --labels land-cover:<collection>`, or name others."
        )
    wanted = set(tile_ids)
    if collection_id.startswith("labels-"):
        frame, classes = pseudo_labels(catalogue, collection_id)
    else:
        frame, classes = _land_cover(catalogue, collection_id)
    frame = frame[frame["tile_id"].isin(wanted)]
    if frame.empty:
        raise LabelError(
            f"{collection_id} labels none of the {len(wanted)} tiles: publish labels of their area."
        )
    shares = frame[classes].to_numpy(np.float32)
    tiles = frame["tile_id"].tolist()
    if collection_id.startswith("labels-"):
        labels = labels_from_probabilities(tiles, shares, minimum)
    else:
        labels = labels_from_fractions(tiles, classes, shares, minimum)
    return _of_used_classes(collection_id, labels)


def read_labels(path: Path, tile_ids: Iterable[str], minimum: float) -> TileLabels:
    """Reads a table of labels: Parquet, GeoParquet, or CSV with commas.

    Args:
        path: The table. Beside ``tile_id`` it has a column ``label`` (one class, text or a whole
            number), a column ``labels`` (a list, or text separated by ";"), or a column per class,
            of true and false or of fractions from 0 to 1.
        tile_ids: The tiles that can be labelled.
        minimum: Fraction from which a class counts.

    Raises:
        LabelError: The table cannot be read, has no column of labels, or has a row that is no good:
            a tile ID that is malformed, unknown or twice there with different labels, no label, a
            fraction that is none; or all its tiles are of one class.
    """
    table = _Table(path)
    table.check_tiles(set(tile_ids))
    named = [name for name in ("label", "labels") if name in table.frame]
    if len(named) > 1:
        raise LabelError(f"{path} has a column label and a column labels: keep one of them.")
    if not named:
        classes, shares = table.fractions()
        rows = table.first_rows(list(map(bytes, shares)))
        kept = [table.tile_ids[row] for row in rows]
        return _of_used_classes(path, labels_from_fractions(kept, classes, shares[rows], minimum))
    sets = table.class_sets(named[0])
    rows = table.first_rows(sets)
    classes = sorted(set().union(*sets), key=_order)
    place = {name: i for i, name in enumerate(classes)}
    values = np.zeros((len(rows), len(classes)), bool)
    for i, row in enumerate(rows):
        values[i, [place[name] for name in sets[row]]] = True
    kept = [table.tile_ids[row] for row in rows]
    return _of_used_classes(path, TileLabels(tuple(kept), tuple(classes), values))


class _Table:
    """A user's table; its messages name the file, the row and the tile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_csv, self.frame = _read_frame(path)
        if "tile_id" not in self.frame:
            columns = ", ".join(map(str, self.frame.columns)) or "none"
            raise LabelError(f"{path} has no column tile_id (its columns: {columns}): {_HOW}.")
        if self.frame.empty:
            raise LabelError(f"{path} has no rows: {_HOW}.")
        self.tile_ids: list[str] = self.frame["tile_id"].astype(str).tolist()

    def row(self, number: int) -> str:
        """How people find a row: by the line of a text file, else by its number from 1 on."""
        line = f"line {number + 2}" if self._is_csv else f"row {number + 1}"
        return f"{self.path}, {line}, tile {self.tile_ids[number]}"

    def check_tiles(self, known: set[str]) -> None:
        """Refuses tiles that are none, or that are not in the catalogue."""
        unknown = [i for i, tile_id in enumerate(self.tile_ids) if tile_id not in known]
        for i in unknown:
            try:
                parse_tile_id(self.tile_ids[i])
            except GridError as error:
                raise LabelError(f"{self.row(i)}: {error}") from None
        if unknown:
            sizes = sorted({tile_id.partition("-")[0] for tile_id in known})
            raise LabelError(
                f"{self.row(unknown[0])} is not among the catalogue's {len(known)} tiles "
                f"({', '.join(sizes) or 'none'}); {len(unknown)} of {len(self.tile_ids)} rows have "
                "such tiles: ingest their area, or take these rows out."
            )

    def first_rows(self, contents: Sequence[Any]) -> list[int]:
        """The first row of every tile; rows that repeat a tile must repeat its labels."""
        first: dict[str, int] = {}
        for i, tile_id in enumerate(self.tile_ids):
            before = first.setdefault(tile_id, i)
            if contents[before] != contents[i]:
                raise LabelError(
                    f"{self.row(i)} has other labels than in {self.row(before)}: keep one of the "
                    "rows; a tile of several classes has them all in one row's column labels."
                )
        return list(first.values())

    def class_sets(self, column: str) -> list[frozenset[str]]:
        """The classes of every row, of a column ``label`` or ``labels``."""
        sets = []
        for i, value in enumerate(self.frame[column].tolist()):
            parts = _parts(value) if column == "labels" else [value]
            names = [_class_name(part) for part in parts]
            if not names or not all(names):
                raise LabelError(
                    f"{self.row(i)}: {value!r} in column {column} is no class: write one, or take "
                    "the row out."
                )
            sets.append(frozenset(names))
        return sets

    def fractions(self) -> tuple[list[str], NDArray[np.float32]]:
        """Classes and their fractions, float32 ``(rows, classes)``, of a column per class."""
        classes = [str(name) for name in self.frame.columns if name not in _NO_CLASSES]
        if not classes:
            raise LabelError(f"{self.path} has no column of labels: {_HOW}.")
        shares = np.empty((len(self.frame), len(classes)), np.float32)
        for i, name in enumerate(classes):
            shares[:, i] = column = _numbers(self.frame[name])
            wrong = np.flatnonzero(~((column >= 0.0) & (column <= 1.0)))
            if len(wrong):
                value = self.frame[name].iloc[wrong[0]]
                raise LabelError(
                    f"{self.row(int(wrong[0]))}: {value!r} in column {name!r} is no fraction from "
                    f"0 to 1 ({len(wrong)} rows have such values). If it is a percentage, divide "
                    f"it by 100; if the column is no class, take it out: {_HOW}."
                )
        return classes, shares


def _read_frame(path: Path) -> tuple[bool, pd.DataFrame]:
    try:
        with path.open("rb") as file:
            is_csv = file.read(4) != b"PAR1"
        if is_csv:
            # As text: 007 is a class of its own, and so is NA.
            return True, pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        names = [name for name in pq.read_schema(path).names if name not in ("geometry", "bbox")]
        return False, pq.read_table(path, columns=names).to_pandas()
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise LabelError(
            f"{path} cannot be read as a table ({error}): expected Parquet, GeoParquet or CSV."
        ) from None


def _parts(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.split(SEPARATOR)
    return list(value) if isinstance(value, Iterable) else [None]


def _class_name(value: Any) -> str:
    """A class as text; empty where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    # A column of whole numbers with a gap in it comes as floats.
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def _order(name: str) -> tuple[bool, int, str]:
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)


def _numbers(column: pd.Series) -> NDArray[np.float32]:
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        truths = {"true": "1", "false": "0"}
        column = column.map(lambda v: truths.get(str(v).strip().lower(), v))
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float32, na_value=np.nan)


def _of_used_classes(source: str | Path, labels: TileLabels) -> TileLabels:
    """Labels without the classes that no tile is of."""
    used = np.flatnonzero(labels.values.any(axis=0))
    classes = tuple(labels.classes[i] for i in used)
    if len(classes) < 2:
        raise LabelError(
            f"All labels in {source} are of one class ({', '.join(classes) or 'none'}): nothing "
            "can be learned from that, label tiles of at least two classes."
        )
    return TileLabels(labels.tile_ids, classes, labels.values[:, used])


def _holds_labels(collection_id: str) -> bool:
    return collection_id.startswith(("labels-", "land-cover-"))


def pseudo_labels(catalogue: Catalogue, collection_id: str) -> tuple[pd.DataFrame, list[str]]:
    """The pseudo-labels of a model.

    Args:
        catalogue: Holds the collection.
        collection_id: ``labels-<model>``.

    Returns:
        A row per tile: ``tile_id`` and a probability per class, in a column of its name; and the
        names of the classes.
    """
    [item] = catalogue.items(collection_id)
    table = pq.read_table(
        catalogue.asset_path(item, "labels"), columns=["tile_id", "probabilities"]
    )
    rows = table["probabilities"].combine_chunks()
    probabilities = rows.flatten().to_numpy().reshape(len(table), -1)
    classes = [str(k) for k in range(probabilities.shape[1])]
    frame = pd.DataFrame(probabilities, columns=classes)
    return frame.assign(tile_id=table["tile_id"].to_pandas()), classes


def _land_cover(catalogue: Catalogue, collection_id: str) -> tuple[pd.DataFrame, list[str]]:
    frame = published_land_cover(catalogue, collection_id)
    classes = {
        name: None
        for item in catalogue.items(collection_id)
        for name in item.properties["rshash:classes"]
    }
    mapped = frame[frame["mapped_fraction"] > 0]
    return mapped.fillna(dict.fromkeys(classes, 0.0)), list(classes)
