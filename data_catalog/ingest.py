"""Reading what was planned, block by block, and publishing it as a segment."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import zarr

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.considered import told_before
from data_catalog.errors import CatalogueError
from data_catalog.geoparquet import write_geoparquet
from data_catalog.grid import footprints, parse_tile_id
from data_catalog.licences import attribution, source_years
from data_catalog.memory import Room, keep_freed_memory
from data_catalog.planning import IngestPlan
from data_catalog.reading import BlockObservations, read_block
from data_catalog.redaction import redacted
from data_catalog.scene_table import SCENES_FILE, scenes_asset, write_scenes
from data_catalog.segment_coordinates import write_coordinates
from data_catalog.segments import (
    INDEX_SCHEMA,
    check_segment,
    collection_of,
    read_part,
    stage_pixels,
    write_block,
    write_part,
)
from data_catalog.stac_items import segment_item

WORKERS = 8
"""Threads that read blocks at once, where blocks have few tiles."""

_ROOM = Room(128 * 1024**2)

# Of use only to threads that begin later.
keep_freed_memory()


@dataclass(frozen=True)
class BlockReport:
    """What became of a block's tiles.

    Attributes:
        valid: Number of valid tiles.
        invalid: Number of invalid tiles.
        reasons: Number of invalid tiles by reason.
        failures: Causes by ID of the scenes that could not be read, whether or not another scene
            could stand in.
        seconds: Time it took; 0 if it was done before.
    """

    valid: int
    invalid: int
    reasons: dict[str, int]
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def ingest_block(plan_folder: Path | str, block_id: str) -> BlockReport:
    """Reads one block of a saved plan into its segment; a block that is done is skipped.

    Scenes that cannot be read never raise: they are named in the report and in the index.

    Raises:
        CatalogueError: There is no such plan or block, its segment is published, or it cannot be
            written: the disk may be full.
    """
    plan = IngestPlan.load(plan_folder)
    if block_id not in plan.blocks:
        raise CatalogueError(f"Block {block_id} is not in the plan of {plan.segment_id}.")
    part = _part(plan, block_id)
    # Two runs may follow one plan: each block is written once, and never after it was published.
    with stac.locked(part.with_suffix(".lock")):
        began = time.monotonic()
        seconds = 0.0
        if not part.exists():
            with in_flight(plan, block_id):
                _write(plan, block_id)
            seconds = time.monotonic() - began
        return _report(part, seconds)


@contextmanager
def in_flight(plan: IngestPlan, block_id: str) -> Iterator[None]:
    """Waits until a block can be worked on, and holds its share of memory while it is.

    Of full blocks of six bands four are worked on at once: more come no faster.
    """
    side = plan.tile_size // plan.sensor.resolution
    with _ROOM.taking(2 * len(plan.blocks[block_id]) * len(plan.bands) * side**2):
        yield


def read_planned_block(plan: IngestPlan, block_id: str) -> BlockObservations:
    """Reads one block of a plan and writes nothing."""
    wanted = {
        parse_tile_id(tile_id): [plan.items[scene_id] for scene_id in scene_ids]
        for tile_id, scene_ids in plan.blocks[block_id].items()
    }
    block = next(iter(wanted)).block
    return read_block(
        block, wanted, plan.sensor, plan.bands, plan.profile, plan.minimum_clear, plan.composite
    )


def publish_segment(catalogue: Catalogue, plan: IngestPlan) -> str:
    """Publishes the segment of a plan whose blocks are all done.

    Scenes that stay unreadable are tried in every run, but told only once: a segment that would
    have nothing but invalid tiles, all told before for the same reasons, is not published.

    Returns:
        Item ID of the segment that tells what became of the plan's tiles.

    Raises:
        CatalogueError: Blocks are missing, the disk is full, or what was written cannot be read
            back; then nothing of it counts as done any more, and the next ingest reads it anew.
    """
    with stac.writing(catalogue.root), stac.locked(plan.folder / ".lock"):
        segment_id = plan.segment_id
        if segment_id not in catalogue.item_ids(collection_of(plan.sensor_id)):
            segment_id = _publish(catalogue, plan)
        shutil.rmtree(plan.folder, ignore_errors=True)
    return segment_id


def _write(plan: IngestPlan, block_id: str) -> None:
    catalogue = Catalogue.open(plan.catalog)
    with stac.writing(catalogue.root):
        folder = catalogue.asset_folder(collection_of(plan.sensor_id), plan.segment_id)
        array = stage_pixels(folder, len(plan.blocks), plan.sensor, plan.bands, plan.tile_size)
    observations = read_planned_block(plan, block_id)
    number = plan.block_ids.index(block_id)
    with stac.writing(catalogue.root):
        write_block(folder, array, number, observations.pixels)
        write_part(_part(plan, block_id), number, observations)


def _publish(catalogue: Catalogue, plan: IngestPlan) -> str:
    collection = collection_of(plan.sensor_id)
    parts = [_part(plan, block_id) for block_id in plan.blocks]
    missing = [part.stem for part in parts if not part.exists()]
    if missing or not parts:
        raise CatalogueError(
            f"Segment {plan.segment_id} is not complete: {len(missing)} of {len(parts)} blocks are "
            f"not read yet ({', '.join(missing[:3])} …). Run the ingest again."
        )
    folder = catalogue.asset_folder(collection, plan.segment_id)
    index = _index(pa.concat_tables([read_part(part)[0] for part in parts]).to_pandas())
    told_by = told_before(catalogue, plan.sensor_id, plan.bands, plan.composite, index)
    if told_by:
        shutil.rmtree(folder)
        return told_by
    _check_staged(plan, folder, index)
    credit = attribution(source_years(plan.sensor_id, index["datetime"]))
    described = zarr.open_group(folder / "pixels.zarr", mode="r+", use_consolidated=False)
    described.attrs.update({"license": plan.sensor.license, "attribution": credit})
    write_coordinates(folder, index)
    metadata = {"license": plan.sensor.license, "attribution": credit}
    write_geoparquet(folder / "index.parquet", index, metadata, INDEX_SCHEMA)
    write_scenes(folder / SCENES_FILE, plan.scenes.values())
    item = segment_item(
        plan.segment_id,
        plan.sensor,
        index,
        plan.bands,
        _addresses(plan, index),
        folder,
        plan.composite,
    )
    item.add_asset("scenes", scenes_asset(folder / SCENES_FILE))
    for leftover in (folder / ".lock", *folder.rglob("*.partial")):  # Zarr's, of a killed run
        leftover.unlink(missing_ok=True)
    catalogue.publish(collection, item)
    return plan.segment_id


def _check_staged(plan: IngestPlan, folder: Path, index: pd.DataFrame) -> None:
    try:
        check_segment(folder, index)
    except CatalogueError:
        # Else every further run would take the damaged blocks for done and fail here again.
        shutil.rmtree(plan.folder / "parts", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _part(plan: IngestPlan, block_id: str) -> Path:
    return plan.folder / "parts" / f"{block_id}.parquet"


def _report(part: Path, seconds: float) -> BlockReport:
    index, failures = read_part(part)
    told = [str(reason) for reason in index["reason"].drop_null().to_pylist()]
    # How unclear a tile is differs from tile to tile; what could not be read is worth its detail.
    reasons = Counter(
        reason if reason.startswith("unreadable") else reason.partition(":")[0] for reason in told
    )
    return BlockReport(len(index) - len(told), len(told), dict(reasons), failures, seconds)


def _index(rows: pd.DataFrame) -> gpd.GeoDataFrame:
    rows = rows.sort_values("row").reset_index(drop=True)
    squares = footprints([parse_tile_id(tile_id) for tile_id in rows["tile_id"]])
    return gpd.GeoDataFrame(rows, geometry=squares, crs="OGC:CRS84")


def _addresses(plan: IngestPlan, index: pd.DataFrame) -> dict[str, str]:
    used = {scene_id for scene_ids in index["source_scenes"] for scene_id in scene_ids}
    found = {scene_id: plan.items[scene_id].get_self_href() for scene_id in used}
    return {scene_id: redacted(href) for scene_id, href in found.items() if href}
