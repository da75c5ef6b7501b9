"""The newest valid observation of every tile, kept up to date by what is published since.

The view lies in the catalogue's ``.cache`` folder and may be deleted at any time: segments never
change, so it is right as long as the segments that it is made of are the first of those that are
published now. It is then brought up to date by the others alone; else it is made anew.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pystac
from numpy.typing import NDArray

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.grid import parse_tile_id
from data_catalog.segments import INDEX_SCHEMA, collection_of, index_columns, published_bands

_SCENES = "\n"
"""Between the IDs of scenes: a tile's are one text, of which many tiles have the same."""

_METADATA = (b"segments", b"lacking")

VIEW_SCHEMA = pa.schema(
    [
        INDEX_SCHEMA.field("tile_id"),
        ("segment", pa.int32()),
        INDEX_SCHEMA.field("row"),
        INDEX_SCHEMA.field("datetime"),
        INDEX_SCHEMA.field("clear_fraction"),
        ("source_scenes", pa.dictionary(pa.int32(), pa.string())),
    ]
)


@dataclass(frozen=True)
class CurrentView:
    """The newest valid observation of every tile of a sensor, sorted by ``tile_id``.

    Attributes:
        segments: IDs of all segments that were published when it was made, oldest first.
        lacking: IDs of those that lack one of the bands.
        table: ``tile_id``, ``segment`` (its number among them), ``row``, ``datetime``,
            ``clear_fraction`` and ``source_scenes`` (IDs in one text).
    """

    segments: tuple[str, ...]
    lacking: tuple[str, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def tile_ids(self) -> pa.Array:
        """The tiles' IDs."""
        return joined(self.table["tile_id"])

    @cached_property
    def scenes(self) -> pa.DictionaryArray:
        """The scenes that the observations come from, their IDs in one text."""
        return joined(self.table["source_scenes"])

    @property
    def times(self) -> NDArray[np.int64]:
        """When the tiles were observed, microseconds of Unix time."""
        return self.table["datetime"].cast(pa.int64()).to_numpy()

    @cached_property
    def sizes(self) -> dict[int, range]:
        """Where in the view the tiles of each size are, by metres on a side."""
        found, start = {}, 0
        while start < len(self):
            size = parse_tile_id(self.tile_ids[start].as_py()).size
            # The character after the "-" that ends the size.
            end = bisect_left(self.tile_ids, f"UTM{size}.", key=lambda one: one.as_py())
            found[size] = range(start, end)
            start = end
        return found

    def zone(self, name: str) -> tuple[int, pa.Array]:
        """The tiles of a zone such as ``UTM1920-32N``, and where in the view they begin."""
        held = np.flatnonzero(pc.starts_with(self.tile_ids, f"{name}_").to_numpy(False))
        start = int(held[0]) if len(held) else 0
        return start, self.tile_ids.slice(start, len(held))

    def positions(self, tile_ids: pa.Array) -> NDArray[np.int64]:
        """Where tiles are in the view; -1 where they are not."""
        return positions_in(self.tile_ids, tile_ids)

    def frame(self, at: NDArray[np.integer] | None = None) -> pd.DataFrame:
        """Rows as ``current_observations`` returns them: those at some positions, or all."""
        table = self.table if at is None else self.table.take(pa.array(at))
        scenes = joined(table["source_scenes"])
        lists = np.empty(len(scenes.dictionary), object)
        for number, ids in enumerate(scenes_of(scenes.dictionary)):
            lists[number] = ids
        names = np.array([*self.segments, ""], object)[:-1]
        return pd.DataFrame(
            {
                "tile_id": table["tile_id"].to_pandas(),
                "segment_id": pd.Series(names[table["segment"].to_numpy()], dtype="str"),
                **{name: table[name].to_pandas() for name in ("row", "datetime", "clear_fraction")},
                "source_scenes": lists[scenes.indices.to_numpy()],
            }
        )


def current_view(
    catalogue: Catalogue,
    sensor: str,
    tile_size: int | None = None,
    bands: Collection[str] = (),
) -> CurrentView:
    """The view of a sensor as it is now; arguments as ``current_observations``."""
    listed = tuple(catalogue.item_ids(collection_of(sensor)))
    said = json.dumps([tile_size, sorted(set(bands))])
    name = f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.arrow"
    path = catalogue.root / ".cache" / "current" / sensor / name
    before = _saved(path)
    if before is None or before.segments != listed[: len(before.segments)]:
        before = CurrentView((), (), VIEW_SCHEMA.empty_table())
    if before.segments == listed:
        return before
    start = "UTM" if tile_size is None else f"UTM{tile_size}-"
    news, lacking = [VIEW_SCHEMA.empty_table()], [*before.lacking]
    for number in range(len(before.segments), len(listed)):
        [item] = catalogue.items(collection_of(sensor), [listed[number]])
        if published_bands(item).issuperset(bands):
            news.append(_rows_of(catalogue, item, number, start))
        else:
            lacking.append(item.id)
    view = CurrentView(listed, tuple(lacking), newest_of(before.table, pa.concat_tables(news)))
    _save(path, view)
    return view


def newest_of(before: pa.Table, news: pa.Table) -> pa.Table:
    """Rows of a view with those that are published since, each segment's after the last one's.

    Of one moment, what was published last wins.
    """
    if not news.num_rows:
        return before
    news = news.unify_dictionaries()
    codes = joined(news["tile_id"]).dictionary_encode().indices.to_numpy()
    order = np.lexsort((news["datetime"].cast(pa.int64()).to_numpy(), codes))
    is_last = np.append(codes[order][1:] != codes[order][:-1], True)
    news = news.take(pa.array(np.sort(order[is_last])))
    at = positions_in(joined(before["tile_id"]), joined(news["tile_id"]))
    known = at >= 0
    wins = np.zeros(len(at), np.bool_)
    old, new = (table["datetime"].cast(pa.int64()).to_numpy() for table in (before, news))
    wins[known] = new[known] >= old[at[known]]
    order = np.arange(before.num_rows)
    order[at[wins]] = before.num_rows + np.flatnonzero(wins)
    order = np.append(order, before.num_rows + np.flatnonzero(~known))
    merged = pa.concat_tables([before, news]).unify_dictionaries().take(pa.array(order))
    merged = merged if known.all() else merged.sort_by("tile_id")
    return merged.combine_chunks()


def positions_in(held: pa.Array, wanted: pa.Array) -> NDArray[np.int64]:
    """Where values are among others, int64; -1 where they are not."""
    found = pc.index_in(wanted, value_set=held)
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)


def joined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    return whole


def scenes_as_text(scenes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of scenes' IDs, each as one text, with every text held once."""
    return pc.binary_join(scenes, _SCENES).dictionary_encode()


def scenes_of(texts: pa.Array) -> list[list[str]]:
    """The IDs in texts of scenes."""
    return [text.split(_SCENES) if text else [] for text in texts.to_pylist()]


def same_scenes(*texts: pa.Array) -> list[NDArray[np.int64]]:
    """Numbers of several arrays' texts of scenes; those of the same scenes have the same number."""
    known: dict[tuple[str, ...], int] = {}
    return [
        np.array(
            [known.setdefault(tuple(sorted(ids)), len(known)) for ids in scenes_of(array)],
            np.int64,
        )
        for array in texts
    ]


def _rows_of(catalogue: Catalogue, item: pystac.Item, number: int, start: str) -> pa.Table:
    """A segment's valid rows of tiles whose IDs begin with something."""
    columns = [*(name for name in VIEW_SCHEMA.names if name != "segment"), "state"]
    index = index_columns(catalogue, item, columns)
    index = index.filter(
        pc.and_(pc.equal(index["state"], "valid"), pc.starts_with(index["tile_id"], start))
    )
    index = index.set_column(
        index.column_names.index("source_scenes"),
        "source_scenes",
        scenes_as_text(index["source_scenes"]),
    )
    segments = pa.array(np.full(index.num_rows, number, np.int32))
    return index.append_column("segment", segments).select(VIEW_SCHEMA.names).cast(VIEW_SCHEMA)


def _saved(path: Path) -> CurrentView | None:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        said = [tuple(json.loads(table.schema.metadata[name])) for name in _METADATA]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None  # None yet, or cut off by a crash
    return CurrentView(said[0], said[1], table.replace_schema_metadata())


def _save(path: Path, view: CurrentView) -> None:
    said = map(json.dumps, (view.segments, view.lacking))
    table = view.table.replace_schema_metadata(dict(zip(_METADATA, said, strict=True)))
    # What cannot be kept is made again.
    with (
        suppress(OSError),
        stac.replacing(path) as staged,
        pa.OSFile(str(staged), "wb") as file,
        pa.ipc.new_file(file, table.schema) as out,
    ):
        out.write_table(table)
