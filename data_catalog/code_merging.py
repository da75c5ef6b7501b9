"""The next version of a zone's code table: new rows in place of old ones, in Arrow all along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pystac
from numpy.typing import NDArray

from data_catalog.code_schema import code_columns, code_table_schema
from data_catalog.current_view import joined, positions_in, same_scenes, scenes_as_text
from data_catalog.geoparquet import geo_of_all, with_footprints
from data_catalog.grid import footprints, parse_tile_id
from rshash.codes import Words


@dataclass(frozen=True)
class ZoneCodes:
    """A zone's table on its way from one version to the next.

    Attributes:
        name: Such as ``UTM1920-32N``.
        item: The current version; None where there is none yet.
        merged: The next version; of a zone that stays as it is, what the gate looks at.
        changes: Tiles that are new or have other rows, and their flipped bits.
        report: What is told of the new version; empty for a zone that stays as it is.
    """

    name: str
    item: pystac.Item | None
    merged: pa.Table
    changes: pa.Table | None = None
    report: dict[str, Any] = field(default_factory=dict)


def merged_codes(
    name: str, item: pystac.Item | None, old: pa.Table | None, new: pa.Table, bits: int
) -> ZoneCodes:
    """A zone with new rows, each in place of its tile's old one.

    Args:
        name: The zone.
        item: Its current version; None where there is none yet.
        old: Its table, sorted by tile ID.
        new: The rows, as ``as_arrow`` makes them.
        bits: Length of the codes.
    """
    if old is None:
        old = with_squares(code_table_schema(bits).empty_table())
    at = positions_in(joined(old["tile_id"]), joined(new["tile_id"]))
    known = at >= 0
    before, after = words_of(old, bits)[at[known]], words_of(new, bits)[known]
    flips = np.zeros(len(at), np.int64)
    flips[known] = np.bitwise_count(before ^ after).sum(1, dtype=np.int64)
    same = known.copy()
    same[known] = _same_but_for_codes(old.take(pa.array(at[known])), new.filter(pa.array(known)))
    same &= flips == 0
    if same.all():
        return ZoneCodes(name, item, old)
    merged = _merged(old, new, at)
    report = {
        "zone": name,
        "tiles": merged.num_rows,
        "appeared": int((~known).sum()),
        "changed": int((flips > 0).sum()),
        "flipped_bits": int(flips.sum()),
    }
    flipped = pa.array(flips, pa.uint32(), mask=~known)
    changes = pa.table({"tile_id": new["tile_id"], "flipped_bits": flipped})
    return ZoneCodes(name, item, merged, changes.filter(pa.array(~same)).sort_by("tile_id"), report)


def _merged(old: pa.Table, new: pa.Table, at: NDArray[np.int64]) -> pa.Table:
    """A table with new rows in place of its tiles' old ones, whose squares they keep.

    Args:
        old: With footprints, sorted by tile ID.
        new: Without footprints.
        at: Where the new rows' tiles are in the old table; -1 where they appear.
    """
    appeared = with_squares(new.filter(pa.array(at < 0)))
    order = np.arange(old.num_rows)
    order[at[at >= 0]] = old.num_rows + np.flatnonzero(at >= 0)
    order = np.append(order, old.num_rows + np.flatnonzero(at < 0))
    kept = old.select(new.column_names).cast(new.schema)
    merged = pa.concat_tables([kept, new]).take(pa.array(order))
    for name in ("geometry", "bbox"):
        chunks = [*old[name].chunks, *appeared[name].chunks]
        merged = merged.append_column(name, pa.chunked_array(chunks, old[name].type))
    told = geo_of_all([old, appeared])
    merged = merged.sort_by("tile_id") if appeared.num_rows else merged
    return merged.combine_chunks().replace_schema_metadata(told)


def _same_but_for_codes(old: pa.Table, new: pa.Table) -> NDArray[np.bool_]:
    """Which rows are of the same observation, and their codes of the same source."""
    same = pc.and_(
        pc.equal(old["datetime"], new["datetime"]), pc.equal(old["code_source"], new["code_source"])
    ).to_numpy()
    texts = [joined(scenes_as_text(table["source_scenes"])) for table in (old, new)]
    known = same_scenes(*(text.dictionary for text in texts))
    before, after = (
        number[text.indices.to_numpy()] for number, text in zip(known, texts, strict=True)
    )
    return np.asarray(same & (before == after))


def as_arrow(rows: pd.DataFrame, bits: int) -> pa.Table:
    """Rows of a code table, with the columns of ``code_table_schema``."""
    schema = code_table_schema(bits)
    table = pa.Table.from_pandas(rows[schema.names], schema, preserve_index=False)
    return table.replace_schema_metadata()


def with_squares(table: pa.Table) -> pa.Table:
    """A table with its tiles' footprints."""
    tiles = [parse_tile_id(tile_id) for tile_id in table["tile_id"].to_pylist()]
    squares = np.empty(len(tiles), object)
    squares[:] = footprints(tiles)
    return with_footprints(table, squares)


def words_of(table: pa.Table, bits: int) -> Words:
    """The codes of a table's rows, uint64 ``(n, words)``."""
    return np.stack([table[name].to_numpy() for name in code_columns(bits)], axis=1)


def measured_columns(bits: int) -> list[str]:
    """The columns that a quality gate looks at."""
    return ["tile_id", "datetime", *code_columns(bits)]
