"""Code tables: the published codes of one UTM zone by one model, as GeoParquet for SQL too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pystac
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_merging import (
    ZoneCodes,
    as_arrow,
    measured_columns,
    merged_codes,
    with_squares,
    words_of,
)
from data_catalog.code_schema import code_columns, collection_of
from data_catalog.current_view import (
    CurrentView,
    joined,
    positions_in,
    same_scenes,
    scenes_as_text,
)
from data_catalog.errors import CatalogueError
from data_catalog.geometry import outline
from data_catalog.geoparquet import (
    geo_of_all,
    read_geoparquet,
    write_tiles,
)
from data_catalog.grid import footprints, parse_tile_id
from data_catalog.licences import attribution, source_years
from data_catalog.stac_items import code_table_item, table_asset
from data_catalog.versions import next_version
from rshash.codes import Words

if TYPE_CHECKING:
    from rshash.model import Model

NETWORK = "network"
"""Code source: the model made the code from pixels."""

LEARNED = "learned"
"""Code source: the code was optimised together with the model, from the tile's labels."""

CHANGES = ["appeared", "changed", "flipped_bits"]
"""What a version tells of its difference from the one before: numbers of tiles and of bits."""

OBSERVATION = ["datetime", "source_scenes"]
"""Columns by which an observation of a tile is told from all others."""


def code_rows(observations: pd.DataFrame, codes: Words, code_source: str = NETWORK) -> pd.DataFrame:
    """Rows for ``publish_code_tables`` of observations and their codes.

    Args:
        observations: ``tile_id``, ``datetime``, ``source_scenes`` and ``clear_fraction``.
        codes: uint64, ``(len(observations), words)``.
        code_source: ``NETWORK`` or ``LEARNED``.
    """
    columns = ["tile_id", "datetime", "source_scenes", "clear_fraction"]
    rows = pd.DataFrame(observations[columns]).reset_index(drop=True)
    for i, word in enumerate(codes.T):
        rows[f"code_{i}"] = word
    rows["code_source"] = code_source
    return rows


def with_learned_codes(rows: pd.DataFrame, learned: pd.DataFrame | None, bits: int) -> pd.DataFrame:
    """Rows in which labelled tiles have the code that was learned with the model.

    A tile keeps its learned code as long as its observation is the very one that it was learned
    from; once it has a newer one, its code comes from the network like any other tile's.

    Args:
        rows: As ``code_rows`` makes them.
        learned: As ``learned_codes`` returns them; None where the model has none.
        bits: Length of the codes.
    """
    if learned is None or rows.empty:
        return rows
    at = pd.Index(learned["tile_id"]).get_indexer(pd.Index(rows["tile_id"]))
    same = at >= 0
    for column in OBSERVATION:
        same[same] = _comparable(learned[column].iloc[at[same]]) == _comparable(rows[column][same])
    rows = rows.copy()
    for column in [*code_columns(bits), "code_source"]:
        rows.loc[same, column] = learned[column].to_numpy()[at[same]]
    return rows


def _comparable(column: pd.Series[Any]) -> NDArray[Any]:
    if column.name == "source_scenes":
        return np.array(["\n".join(sorted(scenes)) for scenes in column], object)
    return pd.to_datetime(column, utc=True).to_numpy("datetime64[us]")


def codes_of(table: pd.DataFrame | pa.Table, bits: int) -> Words:
    """The codes of a table's rows, uint64 ``(n, words)``."""
    if isinstance(table, pd.DataFrame):
        return table[code_columns(bits)].to_numpy(np.uint64)
    return words_of(table, bits)


def write_code_table(path: Path, frame: pd.DataFrame, bits: int, sensor: str) -> pa.Table:
    """Writes a code table as GeoParquet 1.1, sorted by tile ID.

    Args:
        path: The file.
        frame: The columns of ``code_table_schema``, a row per tile.
        bits: Length of the codes.
        sensor: ID of the sensor that the codes were made from, for the attribution.

    Returns:
        What was written, with footprints as ``geometry``, and ``bbox``.
    """
    table = with_squares(as_arrow(frame, bits).sort_by("tile_id"))
    _write(path, table, bits, sensor)
    return table


def published_table(catalogue: Catalogue, item: pystac.Item) -> gpd.GeoDataFrame:
    """Reads the table of a code table's item.

    Raises:
        CatalogueError: It is damaged or missing.
    """
    with _readable(catalogue, item) as path:
        return read_geoparquet(path)


def published_columns(
    catalogue: Catalogue, item: pystac.Item, columns: Sequence[str] | None = None
) -> pa.Table:
    """Some columns of a code table's item, or all; else as ``published_table``."""
    with _readable(catalogue, item) as path:
        return pq.read_table(path, columns=columns)


@contextmanager
def _readable(catalogue: Catalogue, item: pystac.Item) -> Iterator[Path]:
    path = catalogue.asset_path(item, "embeddings")
    try:
        yield path
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CatalogueError(
            f"The code table {path} cannot be read ({error}): restore it, or make an older version "
            "current with `rshash catalog rollback`; `rshash catalog verify` tells what else is "
            "broken."
        ) from error


def stale_observations(catalogue: Catalogue, model_id: str, view: CurrentView) -> pd.DataFrame:
    """The current observations that a model's published codes were not made from.

    Args:
        catalogue: The catalogue.
        model_id: The model.
        view: The current observations of the model's sensor.

    Returns:
        As ``current_observations``.
    """
    stale = np.ones(len(view), np.bool_)
    for item in catalogue.items(collection_of(model_id)):
        table = published_columns(catalogue, item, ["tile_id", *OBSERVATION])
        start, tile_ids = view.zone(item.properties["grid:code"])
        at = positions_in(tile_ids, joined(table["tile_id"]))
        rows = np.flatnonzero(at >= 0)
        at = start + at[rows]
        stale[at] = view.times[at] != table["datetime"].cast(pa.int64()).to_numpy()[rows]
        texts = joined(scenes_as_text(table["source_scenes"]))
        same = same_scenes(view.scenes.dictionary, texts.dictionary)
        stale[at] |= (
            same[0][view.scenes.indices.to_numpy()[at]] != same[1][texts.indices.to_numpy()[rows]]
        )
    return view.frame(np.flatnonzero(stale))


@dataclass(frozen=True)
class ProposedCodes:
    """All codes of a model as they would be published.

    Attributes:
        table: ``tile_id``, ``datetime`` and the codes, a row per tile, of all zones.
        flipped_bits: Bits that flip, int64 ``(m,)``, of the tiles that have other rows than now.
    """

    table: pa.Table
    flipped_bits: NDArray[np.int64]


def publish_code_tables(
    catalogue: Catalogue,
    model: Model,
    rows: pd.DataFrame,
    check: Callable[[ProposedCodes], None] | None = None,
) -> list[dict[str, Any]]:
    """Publishes new codes: a new version of every zone's table that they change.

    Args:
        catalogue: The catalogue.
        model: The model that made the codes.
        rows: As ``code_rows`` makes them; each replaces the tile's published row.
        check: Called with all codes as they would be published; raises to refuse them, and then
            nothing is published.

    Returns:
        A row per zone that got a new version: zone, item, version, tiles, appeared, changed (tiles
        whose code changed) and flipped_bits (over the tiles that were there before).

    Raises:
        CatalogueError: A tile has two rows, or another run published the same zone meanwhile.
    """
    if rows["tile_id"].duplicated().any():
        twice = rows.loc[rows["tile_id"].duplicated(), "tile_id"].iloc[0]
        raise CatalogueError(f"Tile {twice} has two codes to publish: expected a row per tile.")
    if rows.empty:
        return []
    bits, model_id = model.bits, model.model_id
    items = {
        item.properties["grid:code"]: item for item in catalogue.items(collection_of(model_id))
    }
    rows = rows.assign(model_id=model_id)
    by_zone = dict(list(rows.groupby(rows["tile_id"].str.split("_").str[0])))
    zones = [
        _next_version(catalogue, name, items.get(name), by_zone.get(name), bits)
        for name in sorted({*items, *by_zone})
    ]
    if check is not None and any(zone.report for zone in zones):
        check(_proposed(zones, bits))
    return [_publish_zone(catalogue, model, zone) for zone in zones if zone.report]


def _next_version(
    catalogue: Catalogue,
    name: str,
    item: pystac.Item | None,
    rows: pd.DataFrame | None,
    bits: int,
) -> ZoneCodes:
    if rows is None:
        assert item is not None
        return ZoneCodes(name, item, published_columns(catalogue, item, measured_columns(bits)))
    old = published_columns(catalogue, item) if item else None
    return merged_codes(name, item, old, as_arrow(rows, bits), bits)


def _proposed(zones: Sequence[ZoneCodes], bits: int) -> ProposedCodes:
    flips = [zone.changes["flipped_bits"].drop_null() for zone in zones if zone.changes]
    return ProposedCodes(
        pa.concat_tables([zone.merged.select(measured_columns(bits)) for zone in zones]),
        pa.chunked_array([chunk for flip in flips for chunk in flip.chunks]).to_numpy(),
    )


def _publish_zone(catalogue: Catalogue, model: Model, zone: ZoneCodes) -> dict[str, Any]:
    collection_id = collection_of(model.model_id)
    series = f"{model.model_id}-{zone.name}"
    number = next_version(catalogue.versions(collection_id, series))
    item_id = f"{series}-v{number}"
    folder = catalogue.asset_folder(collection_id, item_id)
    with stac.writing(folder):
        item = _stage(catalogue, model, item_id, folder, number, zone)
    file = Path(item.assets["embeddings"].href).name
    catalogue.publish(
        collection_id,
        item,
        verify=lambda folder: check_code_table(folder / file, zone.merged, model.bits),
        supersedes=zone.item.id if zone.item else None,
    )
    return {"item": item_id, "version": number, **zone.report}


def _stage(
    catalogue: Catalogue, model: Model, item_id: str, folder: Path, number: int, zone: ZoneCodes
) -> pystac.Item:
    staged = folder / f".staged-{os.getpid()}.parquet"
    try:
        _write(staged, zone.merged, model.bits, model.primary_sensor)
        # Named by content: two runs that stage the same version never write the same file.
        path = staged.rename(folder / f"codes-{stac.file_checksum(staged)[4:16]}.parquet")
    finally:
        staged.unlink(missing_ok=True)
    item = code_table_item(
        item_id,
        model,
        zone.merged,
        path,
        number,
        _scene_hrefs(catalogue, model.primary_sensor, zone),
        _region(zone),
    )
    item.properties |= {f"rshash:{key}": zone.report[key] for key in CHANGES}
    if zone.item:
        changes = path.with_name(path.name.replace("codes-", "changes-"))
        pq.write_table(zone.changes, changes)
        item.add_asset("changes", table_asset(changes, "What is new in this version", ["metadata"]))
    return item


def _write(path: Path, table: pa.Table, bits: int, sensor: str) -> None:
    metadata = {
        "attribution": attribution(source_years(sensor, table["datetime"].to_pandas())),
        "rshash:bits": str(bits),
        "rshash:bit_order": "bit 0 is the most significant bit of code_0",
        "rshash:metric": "hamming",
        "rshash:code_source": ", ".join(sorted(pc.unique(table["code_source"]).to_pylist())),
    }
    write_tiles(path, table.replace_schema_metadata({**metadata, **geo_of_all([table])}))


def _region(zone: ZoneCodes) -> tuple[BaseGeometry, list[float]]:
    """What a zone's tiles cover together: what those of the version before do, and new ones."""
    if zone.item is None:
        return outline(shapely.from_wkb(zone.merged["geometry"].to_numpy()))
    before = shapely.geometry.shape(zone.item.geometry)
    assert zone.changes is not None and zone.item.bbox is not None
    appeared = zone.changes.filter(pc.is_null(zone.changes["flipped_bits"]))["tile_id"]
    if not len(appeared):
        return before, zone.item.bbox
    new = footprints([parse_tile_id(tile_id) for tile_id in appeared.to_pylist()])
    return outline([*shapely.get_parts(before), *new])


def _scene_hrefs(catalogue: Catalogue, sensor: str, zone: ZoneCodes) -> dict[str, str]:
    """Addresses of the scenes that a zone's codes come from; most are in the version before."""
    wanted = set(pc.unique(pc.list_flatten(zone.merged["source_scenes"])).to_pylist())
    found = _addresses([zone.item] if zone.item else [], wanted)
    segment_ids = catalogue.item_ids(f"tiles-{sensor}")
    while segment_ids and len(found) < len(wanted):
        segments = catalogue.items(f"tiles-{sensor}", [segment_ids.pop()])
        found = _addresses(segments, wanted) | found
    return found


def _addresses(items: Iterable[pystac.Item], wanted: set[str]) -> dict[str, str]:
    return {
        str(link.title): str(link.target)
        for item in items
        for link in item.get_links("derived_from")
        if link.title in wanted
    }


def check_code_table(path: Path, table: pa.Table, bits: int) -> None:
    """Checks that a written table reads back.

    Raises:
        CatalogueError: It has other tiles or codes than it should.
    """
    columns = ["tile_id", *code_columns(bits)]
    written = pq.read_table(path, columns=columns)
    if not written.equals(table.select(columns)):
        raise CatalogueError(
            f"{path} does not read back as it was written ({written.num_rows} of "
            f"{table.num_rows} rows): check the disk and run again."
        )
