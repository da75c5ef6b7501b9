"""A world whose second night can be disturbed, and what is left when nobody disturbs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from fault_server import FaultServer, fault_server
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world
from data_catalog.ingest import read_planned_block
from data_catalog.observations import current_observations
from data_catalog.planning import IngestPlan, plan_ingest
from data_catalog.segments import published_pixels
from data_catalog.verification import verify
from flows.parameters import NightlyParameters

WORLD = World(tiles=6, column=38 * 8 - 3, row=346 * 8 - 3)
"""Four blocks that meet in its middle."""

BLOCKS = 4

SENSORS = ["sentinel-2-l2a", "landsat-c2-l2"]
BITS = 16


def corners() -> shapely.MultiPoint:
    """Four tiles in each corner: no two blocks want the same part of a file of 10 m."""
    columns = sorted({tile.column for tile in WORLD.all_tiles})
    outer = {*columns[:2], *columns[-2:]}
    rows = sorted({tile.row for tile in WORLD.all_tiles})
    ends = {*rows[:2], *rows[-2:]}
    tiles = [tile for tile in WORLD.all_tiles if tile.column in outer and tile.row in ends]
    return shapely.MultiPoint([tile.centre for tile in tiles])


@dataclass
class DisturbedWorld:
    """The world on its second night.

    Attributes:
        folder: Where it all is.
        server: Serves the scenes of both nights.
    """

    folder: Path
    server: FaultServer

    @property
    def whole(self) -> Catalogue:
        """A catalogue after both nights."""
        return Catalogue.open(self.folder / "whole")

    def after_first_night(self, folder: Path) -> Catalogue:
        """A copy of the catalogue as the first night left it."""
        shutil.copytree(self.folder / "first", folder)
        return Catalogue.open(folder)

    def parameters(self, catalogue: Catalogue | Path, **others: Any) -> dict[str, Any]:
        root = catalogue.root if isinstance(catalogue, Catalogue) else catalogue
        return {
            "catalog": str(root),
            "source": f"{self.server.address}/catalog.json",
            "area": str(self.folder / "area.geojson"),
            "period": "2024-06-01/2024-09-30",
            "minimum_clear": 0.05,
            "bands": ["red", "nir"],
            "sensors": SENSORS,
            "clusters": 4,
            "bits": BITS,
            "minimum_distinct": 2,
            "minimum_balance": 0.0,
            "minimum_agreement": 0.0,
            **others,
        }


@contextmanager
def disturbed_world(folder: Path) -> Iterator[DisturbedWorld]:
    """Builds the world, unless another process has, and serves it."""
    with stac.locked(folder / ".lock"):
        if not (folder / "whole").exists():
            _build(folder)
    with fault_server(folder / "world") as server:
        yield DisturbedWorld(folder, server)


def _build(folder: Path) -> None:
    from flows.nightly import nightly

    (folder / "area.geojson").write_text(json.dumps(shapely.geometry.mapping(corners())))
    build_world(folder / "world", 1, WORLD)
    with fault_server(folder / "world") as server:
        world, root = DisturbedWorld(folder, server), folder / "made"
        nightly(NightlyParameters(**world.parameters(root)))
        shutil.copytree(root, folder / "first")
        build_world(folder / "world", 2, WORLD)
        nightly(NightlyParameters(**world.parameters(root)))
    root.rename(folder / "whole")


def own_ranges(world: DisturbedWorld) -> dict[tuple[str, str], str]:
    """What only one block of the second night fetches: its ID by path and range."""
    wanted: dict[tuple[str, str], set[str]] = {}
    catalogue = Catalogue.open(world.folder / "first")
    for number in range(BLOCKS):
        # A server of its own for each: nothing is known of its files yet.
        with fault_server(world.folder / "world") as server:
            for plan in _plans(DisturbedWorld(world.folder, server), catalogue):
                block_id = plan.block_ids[number]
                read_planned_block(plan, block_id)
                # Of coarser files blocks share parts.
                for request in server.requests("*_10m.tif"):
                    wanted.setdefault((request.path, request.bytes), set()).add(block_id)
    own = {place: min(blocks) for place, blocks in wanted.items() if len(blocks) == 1}
    assert len(set(own.values())) == BLOCKS
    return own


def _plans(world: DisturbedWorld, catalogue: Catalogue) -> Iterator[IngestPlan]:
    night = NightlyParameters(**world.parameters(catalogue))
    for sensor in SENSORS:
        yield plan_ingest(
            catalogue,
            night.source,
            sensor,
            night.area,
            night.period,
            bands=list(night.bands_of(sensor)),
            minimum_clear=night.minimum_clear,
        )


def blocks_in_flight(catalogue: Catalogue) -> set[str]:
    """Blocks that a night had begun to read, and not ended, when it ended itself."""
    parts = list(catalogue.root.glob(".plans/*/parts/*"))
    done = {part.stem for part in parts if part.suffix == ".parquet"}
    return {part.stem for part in parts if part.suffix == ".lock"} - done


def assert_as_undisturbed(catalogue: Catalogue, world: DisturbedWorld) -> None:
    """The very same items are current, with the same pixels and codes, and all is whole."""
    whole = world.whole
    assert catalogue.collections() == whole.collections()
    for collection in whole.collections():
        assert catalogue.item_ids(collection) == whole.item_ids(collection), collection
    for sensor in SENSORS:
        for segment in whole.item_ids(f"tiles-{sensor}"):
            pixels, expected = (published_pixels(c, sensor, segment) for c in (catalogue, whole))
            np.testing.assert_array_equal(pixels[:], expected[:])
    assert_same_view(catalogue, world)


def assert_same_view(catalogue: Catalogue, world: DisturbedWorld) -> None:
    """The same observations and codes are current, whatever they came with, and all is whole."""
    whole = world.whole
    codes = collection_of(str(whole.latest_model_id()))
    assert catalogue.item_ids(codes) == whole.item_ids(codes)
    for item in whole.items(codes):
        found = published_table(catalogue, catalogue.item(codes, item.id))
        expected = published_table(whole, item)
        pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected))
    for sensor in SENSORS:
        rows, pixels = _observed(catalogue, sensor)
        expected_rows, expected_pixels = _observed(whole, sensor)
        pd.testing.assert_frame_equal(rows, expected_rows)
        np.testing.assert_array_equal(pixels, expected_pixels)
    assert verify(catalogue) == []


def _observed(catalogue: Catalogue, sensor: str) -> tuple[pd.DataFrame, np.ndarray]:
    frame = current_observations(catalogue, sensor).sort_values("tile_id").reset_index(drop=True)
    segments = {one: published_pixels(catalogue, sensor, one) for one in set(frame["segment_id"])}
    places = zip(frame["segment_id"], frame["row"], strict=True)
    pixels = np.stack([np.asarray(segments[one][row]) for one, row in places])
    about = ["tile_id", "datetime", "clear_fraction", "source_scenes"]
    return pd.DataFrame(frame[about]), pixels


def run_called(name: str) -> FlowRun:
    """The flow run of this name, as the Prefect server knows it."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter.model_validate({"name": {"any_": [name]}})
        [run] = client.read_flow_runs(flow_run_filter=wanted)
    return run


def with_subflows(run: FlowRun) -> list[FlowRun]:
    """A run, as it is now, and the runs inside of it."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [run.id]}})
        return [client.read_flow_run(run.id), *client.read_flow_runs(flow_run_filter=wanted)]


def page_of(run: FlowRun) -> str:
    """What the page of a run shows: messages of its own state and its subflows', and artifacts."""
    runs = with_subflows(run)
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter.model_validate(
                {"flow_run_id": {"any_": [one.id for one in runs]}}
            )
        )
    states = [f"{one.state.name}: {one.state.message}" for one in runs if one.state]
    return "\n".join([*states, *(f"{one.key}: {one.description} {one.data}" for one in found)])
