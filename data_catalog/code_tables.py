"""Code tables: the published codes of one UTM zone by one model, as GeoParquet for SQL too."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
from numpy.typing import NDArray

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_columns, code_table_schema, collection_of
from data_catalog.errors import CatalogueError
from data_catalog.geoparquet import read_geoparquet, write_geoparquet
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
    same = _unchanged(learned, rows, OBSERVATION)
    at, _ = _rows_of(learned, rows)
    rows = rows.copy()
    for column in [*code_columns(bits), "code_source"]:
        rows.loc[same, column] = learned[column].to_numpy()[at[same]]
    return rows


def codes_of(frame: pd.DataFrame, bits: int) -> Words:
    """The codes of a table's rows, uint64 ``(n, words)``."""
    return frame[code_columns(bits)].to_numpy(np.uint64)


def write_code_table(path: Path, frame: pd.DataFrame, bits: int, sensor: str) -> gpd.GeoDataFrame:
    """Writes a code table as GeoParquet 1.1, sorted by tile ID.

    Args:
        path: The file.
        frame: The columns of ``code_table_schema``, a row per tile.
        bits: Length of the codes.
        sensor: ID of the sensor that the codes were made from, for the attribution.

    Returns:
        What was written, with footprints as ``geometry``.
    """
    schema = code_table_schema(bits)
    frame = frame[schema.names].sort_values("tile_id", ignore_index=True)
    geometry = footprints([parse_tile_id(tile_id) for tile_id in frame["tile_id"]])
    table = gpd.GeoDataFrame(frame, geometry=geometry, crs="OGC:CRS84")
    metadata = {
        "attribution": attribution(source_years(sensor, frame["datetime"])),
        "rshash:bits": str(bits),
        "rshash:bit_order": "bit 0 is the most significant bit of code_0",
        "rshash:metric": "hamming",
        "rshash:code_source": ", ".join(sorted(set(table["code_source"]))),
    }
    write_geoparquet(path, table, metadata, schema)
    return table


def published_table(catalogue: Catalogue, item: pystac.Item) -> gpd.GeoDataFrame:
    """Reads the table of a code table's item.

    Raises:
        CatalogueError: It is damaged or missing.
    """
    path = catalogue.asset_path(item, "embeddings")
    try:
        return read_geoparquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CatalogueError(
            f"The code table {path} cannot be read ({error}): restore it, or make an older version "
            "current with `rshash catalog rollback`; `rshash catalog verify` tells what else is "
            "broken."
        ) from error


def stale_observations(
    catalogue: Catalogue, model_id: str, observations: gpd.GeoDataFrame
) -> gpd.GeoDataFrame:
    """The observations that a model's published codes were not made from.

    Args:
        catalogue: The catalogue.
        model_id: The model.
        observations: ``tile_id``, ``datetime`` and ``source_scenes``, a row per tile.
    """
    items = catalogue.items(collection_of(model_id))
    if not items or observations.empty:
        return observations
    published = pd.concat([published_table(catalogue, item) for item in items])
    return observations[~_unchanged(published, observations, OBSERVATION)]


@dataclass(frozen=True)
class ProposedCodes:
    """All codes of a model as they would be published.

    Attributes:
        table: The columns of ``code_table_schema``, a row per tile, of all zones.
        flipped_bits: Bits that flip, int64 ``(m,)``, of the tiles that have other rows than now.
    """

    table: pd.DataFrame
    flipped_bits: NDArray[np.int64]


@dataclass(frozen=True)
class _Zone:
    """A zone's table on its way from one version to the next."""

    name: str
    item: pystac.Item | None
    merged: pd.DataFrame
    changes: pd.DataFrame
    report: dict[str, Any]


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
    model_id, bits = model.model_id, model.bits
    items = {
        item.properties["grid:code"]: item for item in catalogue.items(collection_of(model_id))
    }
    rows = rows.assign(model_id=model_id)
    by_zone = dict(list(rows.groupby(rows["tile_id"].str.split("_").str[0])))
    zones = [
        _merge(zone, items.get(zone), by_zone.get(zone), catalogue, bits)
        for zone in sorted({*items, *by_zone})
    ]
    if check is not None and any(zone.report for zone in zones):
        check(_proposed(zones))
    return [_publish_zone(catalogue, model, model_id, zone) for zone in zones if zone.report]


def _proposed(zones: Sequence[_Zone]) -> ProposedCodes:
    flips = [zone.changes["flipped_bits"].dropna() for zone in zones if zone.report]
    return ProposedCodes(
        pd.concat([zone.merged for zone in zones], ignore_index=True),
        pd.concat(flips).to_numpy(np.int64),
    )


def _merge(
    name: str,
    item: pystac.Item | None,
    new: pd.DataFrame | None,
    catalogue: Catalogue,
    bits: int,
) -> _Zone:
    names = code_table_schema(bits).names
    old = published_table(catalogue, item)[names] if item else pd.DataFrame(columns=names)
    if new is None:
        return _Zone(name, item, old, pd.DataFrame(), {})
    same = _unchanged(old, new, [*OBSERVATION, "code_source", *code_columns(bits)])
    if same.all():
        return _Zone(name, item, old, pd.DataFrame(), {})
    at, known = _rows_of(old, new)
    differing = codes_of(old, bits)[at[known]] ^ codes_of(new, bits)[known]
    flipped = np.bitwise_count(differing).sum(1, dtype=np.int64)
    merged = new if old.empty else pd.concat([old[~old["tile_id"].isin(new["tile_id"])], new])
    report = {
        "zone": name,
        "tiles": len(merged),
        "appeared": int((~known).sum()),
        "changed": int((flipped > 0).sum()),
        "flipped_bits": int(flipped.sum()),
    }
    flips = np.zeros(len(new), np.int64)
    flips[known] = flipped
    changes = pd.DataFrame(
        {"tile_id": new["tile_id"].to_numpy(), "flipped_bits": pd.Series(flips).where(known)}
    )[~same]
    return _Zone(name, item, merged[names], changes, report)


def _rows_of(old: pd.DataFrame, new: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each new row its tile's row in the old table, and whether there is one."""
    at = pd.Index(old["tile_id"]).get_indexer(pd.Index(new["tile_id"]))
    return at.astype(np.int64), at >= 0


def _unchanged(old: pd.DataFrame, new: pd.DataFrame, columns: list[str]) -> NDArray[np.bool_]:
    at, unchanged = _rows_of(old, new)
    known = unchanged.copy()
    for column in columns:
        before = _comparable(old[column].iloc[at[known]])
        unchanged[known] &= before == _comparable(new[column][known])
    return unchanged


def _comparable(column: pd.Series[Any]) -> NDArray[Any]:
    if column.name == "source_scenes":
        return np.array(["\n".join(sorted(scenes)) for scenes in column], object)
    if column.name == "datetime":
        return pd.to_datetime(column, utc=True).to_numpy("datetime64[us]")
    return column.to_numpy()


def _publish_zone(catalogue: Catalogue, model: Model, model_id: str, zone: _Zone) -> dict[str, Any]:
    collection_id = collection_of(model_id)
    series = f"{model_id}-{zone.name}"
    number = next_version(catalogue.versions(collection_id, series))
    item_id = f"{series}-v{number}"
    folder = catalogue.asset_folder(collection_id, item_id)
    with stac.writing(folder):
        item, table = _stage(catalogue, model, item_id, folder, number, zone)
    file = Path(item.assets["embeddings"].href).name
    catalogue.publish(
        collection_id,
        item,
        verify=lambda folder: check_code_table(folder / file, table, model.bits),
        supersedes=zone.item.id if zone.item else None,
    )
    return {"item": item_id, "version": number, **zone.report}


def _stage(
    catalogue: Catalogue, model: Model, item_id: str, folder: Path, number: int, zone: _Zone
) -> tuple[pystac.Item, gpd.GeoDataFrame]:
    staged = folder / f".staged-{os.getpid()}.parquet"
    try:
        table = write_code_table(staged, zone.merged, model.bits, model.primary_sensor)
        # Named by content: two runs that stage the same version never write the same file.
        path = staged.rename(folder / f"codes-{stac.file_checksum(staged)[4:16]}.parquet")
    finally:
        staged.unlink(missing_ok=True)
    item = code_table_item(
        item_id, model, table, path, number, _scene_hrefs(catalogue, model.primary_sensor, table)
    )
    item.properties |= {f"rshash:{key}": zone.report[key] for key in CHANGES}
    if zone.item:
        changes = _write_changes(path.with_name(path.name.replace("codes-", "changes-")), zone)
        item.add_asset("changes", table_asset(changes, "What is new in this version", ["metadata"]))
    return item, table


def _write_changes(path: Path, zone: _Zone) -> Path:
    schema = pa.schema([("tile_id", pa.string()), ("flipped_bits", pa.uint32())])
    rows = zone.changes.sort_values("tile_id")
    pq.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False), path)
    return path


def _scene_hrefs(catalogue: Catalogue, sensor: str, table: pd.DataFrame) -> dict[str, str]:
    wanted = {scene for scenes in table["source_scenes"] for scene in scenes}
    return {
        str(link.title): str(link.target)
        for segment in catalogue.items(f"tiles-{sensor}")
        for link in segment.get_links("derived_from")
        if link.title in wanted
    }


def check_code_table(path: Path, table: pd.DataFrame, bits: int) -> None:
    """Checks that a written table reads back.

    Raises:
        CatalogueError: It has other tiles or codes than it should.
    """
    written = read_geoparquet(path)
    if list(written["tile_id"]) != list(table["tile_id"]) or not np.array_equal(
        codes_of(written, bits), codes_of(table, bits)
    ):
        raise CatalogueError(
            f"{path} does not read back as it was written ({len(written)} of {len(table)} rows): "
            "check the disk and run again."
        )
