"""A model's code tables read as one long table: only the columns and row groups that are needed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_catalog.code_schema import code_columns
from data_catalog.errors import CatalogueError
from data_catalog.geoparquet import CORNERS
from data_catalog.grid import Zone, centres_of, parse_tile_id
from rshash.codes import Words

CACHED_COLUMNS = 512
"""Columns of row groups that are kept: their tile IDs take 3 MB, other columns less than 1 MB."""

CACHED_CENTRES = 128
"""Row groups of which the tiles' places are kept, 2 MB each."""


class CodeTables:
    """The current tables of all zones, ordered by tile ID; a row's number is its place in them.

    It is safe to read from several threads, and goes on to read the versions it was opened with.
    """

    def __init__(self, paths: Sequence[Path]):
        """Opens tables.

        Args:
            paths: The files, such that all tile IDs in one come before all in the next.

        Raises:
            CatalogueError: A file cannot be read.
        """
        self._files = [_TableFile(path) for path in paths]
        self._groups = [(file, group) for file in self._files for group in range(file.groups)]
        sizes = [file.group_rows(group) for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._first_ids = [file.first_tile_id(group) for file, group in self._groups]
        self._part = lru_cache(CACHED_COLUMNS)(self._read_part)
        self._centres = lru_cache(CACHED_CENTRES)(lambda n: _centres(self._part(n, "tile_id")))

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._starts[-1])

    def codes(self, bits: int) -> Words:
        """All codes, uint64 ``(rows, words)``."""
        names = code_columns(bits)
        codes = np.empty((len(self), len(names)), np.uint64)

        def read(number: int) -> None:
            file, group = self._groups[number]
            rows = codes[self._starts[number] : self._starts[number + 1]]
            for word, name in enumerate(names):
                rows[:, word] = plain_array(file.read_group(group, name))

        # By row groups: what is decoded stays in the cache until it is copied.
        with ThreadPoolExecutor() as pool:
            list(pool.map(read, range(len(self._groups))))
        return codes

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column."""
        return pa.chunked_array(
            [chunk for file in self._files for chunk in file.read([name])[name].chunks]
        )

    def row(self, tile_id: str) -> int | None:
        """The row of a tile; None where it has none."""
        group = bisect_left(self._first_ids, tile_id)
        if group == len(self._first_ids) or self._first_ids[group] != tile_id:
            group -= 1
        if group < 0:
            return None
        held = self._part(group, "tile_id")
        at = bisect_left(range(len(held)), tile_id, key=lambda i: held[i].as_py())
        if at == len(held) or held[at].as_py() != tile_id:
            return None
        return int(self._starts[group]) + at

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Some rows, in the order asked for."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(groups, kind="stable")
        ends = np.flatnonzero(np.diff(groups[order])) + 1
        taken: dict[str, list[pa.Array]] = {name: [] for name in columns}
        for places in np.split(order, ends) if len(rows) else []:
            group = int(groups[places[0]])
            local = _whole_numbers(rows[places] - self._starts[group])
            for name in columns:
                taken[name].append(self._part(group, name).take(local))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        schema = self._files[0].schema
        return pa.table(
            {
                name: pa.chunked_array(taken[name], schema.field(name).type).combine_chunks()
                for name in columns
            }
        ).take(_whole_numbers(back))

    def groups_near(self, west: float, south: float, east: float, north: float) -> list[int]:
        """Row groups that may hold tiles in a box, degrees; west is not greater than east."""
        return [
            number
            for number, (file, group) in enumerate(self._groups)
            if file.may_touch(group, (west, south, east, north))
        ]

    def centres(self, number: int) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """The first row of a row group, and longitudes and latitudes of its tiles' centres."""
        return int(self._starts[number]), *self._centres(number)

    def _read_part(self, number: int, name: str) -> pa.Array:
        file, group = self._groups[number]
        return file.read_group(group, name)


class _TableFile:
    """One code table."""

    def __init__(self, path: Path):
        self._path = path
        with self._readable():
            # Open as long as it is in use: a version that is removed meanwhile stays readable. Not
            # mapped: of a mapped file that is cut off, reading ends the process.
            self._file = pa.OSFile(str(path))
            self._metadata = pq.read_metadata(self._file)
            self.schema = self._metadata.schema.to_arrow_schema()
            leaves = [
                self._metadata.schema.column(i).path for i in range(len(self._metadata.schema))
            ]
            self._tile_id = leaves.index("tile_id")
            self._corners = [leaves.index(f"bbox.{corner}") for corner in CORNERS]
        self.groups: int = self._metadata.num_row_groups

    def group_rows(self, group: int) -> int:
        return int(self._metadata.row_group(group).num_rows)

    def first_tile_id(self, group: int) -> str:
        return str(self._metadata.row_group(group).column(self._tile_id).statistics.min)

    def may_touch(self, group: int, box: tuple[float, float, float, float]) -> bool:
        columns = self._metadata.row_group(group)
        low, high = zip(
            *((s.min, s.max) for s in (columns.column(i).statistics for i in self._corners)),
            strict=True,
        )
        west, south, east, north = box
        # A tile over the antimeridian has its west greater than its east: only zones 1 and 60 have
        # such tiles, and then the group's longitudes say nothing.
        at_antimeridian = high[0] > 179.0 or low[2] < -179.0
        across = at_antimeridian or (low[0] <= east and high[2] >= west)
        return bool(across and low[1] <= north and high[3] >= south)

    def read(self, columns: list[str]) -> pa.Table:
        with self._readable():
            return self._open().read(columns)

    def read_group(self, group: int, column: str) -> pa.Array:
        with self._readable():
            return self._open().read_row_group(group, [column])[column].combine_chunks()

    def _open(self) -> pq.ParquetFile:
        # One for each read: a Parquet file of Arrow's must not be shared by threads.
        return pq.ParquetFile(self._file, metadata=self._metadata)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CatalogueError(
                f"The code table {self._path} cannot be read ({error}): `rshash catalog verify` "
                "tells what is damaged, `rshash catalog rollback` goes back to a version before."
            ) from error


@dataclass(frozen=True)
class Squares:
    """Tiles of one zone and size among others.

    Attributes:
        zone: The zone.
        size: Metres on a side.
        places: Where among all they are, int64 ``(n,)``.
        columns: Of the tiles in the zone, int64 ``(n,)``.
        rows: Of the tiles in the zone, int64 ``(n,)``.
    """

    zone: Zone
    size: int
    places: NDArray[np.int64]
    columns: NDArray[np.int64]
    rows: NDArray[np.int64]


def squares_of(tile_ids: pa.Array) -> Iterator[Squares]:
    """Zones, columns and rows of published tile IDs, by zone."""
    parts = pc.list_flatten(pc.split_pattern(tile_ids, "_"))
    first = 3 * np.arange(len(tile_ids))
    names, columns, rows = (parts.take(_whole_numbers(first + i)) for i in range(3))
    columns, rows = (plain_array(pc.cast(part, pa.int64())) for part in (columns, rows))
    names = names.dictionary_encode()
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    zones = plain_array(names.indices)
    for number in range(len(names.dictionary)):
        places = np.flatnonzero(zones == number)
        example = parse_tile_id(tile_ids[int(places[0])].as_py())
        yield Squares(example.zone, example.size, places, columns[places], rows[places])


def plain_array(numbers: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Numbers of Arrow's, none of them missing, for numpy."""
    # ``to_numpy`` would import pandas, which takes longer than a query.
    numbers = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    return np.from_dlpack(numbers)


def _whole_numbers(numbers: NDArray[np.int64]) -> pa.Array:
    # ``pa.array`` would import pandas too.
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def _centres(tile_ids: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of the tiles of a row group, which are all of one zone and size."""
    [squares] = squares_of(tile_ids)
    lon, lat = centres_of(squares.zone, squares.columns, squares.rows, squares.size).T
    return lon, lat
