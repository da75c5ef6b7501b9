"""What does a night cost when little of a large catalogue has changed?

Segments of small real tiles (12 x 12 pixels, three bands) are published in several zones, and all
are encoded and published once: the baseline. Every night then publishes a segment with newer
observations of some share of the tiles, whole blocks of them spread over all zones (the worst case,
since every zone's table is written anew), and goes through what the nightly flow does after the
reading: it finds what scenes were considered, finds stale tiles, encodes, measures and publishes.
Each night is a process of its own, so that its peak memory is its own. Seconds are of processor
time, which other programs on the machine do not add to; the time that passed is told beside them.

With --server a re-hash of a whole catalogue is run as a flow on a real Prefect server; told is in
how much of its time no work was done.

    python benchmarks/nightly.py --tiles 1000000 --folder . --json nightly.json
    python benchmarks/nightly.py --server --tiles 100000 --folder .
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import torch

from data_catalog import feature_cache
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    ProposedCodes,
    publish_code_tables,
    stale_observations,
)
from data_catalog.considered import considered_scenes
from data_catalog.current_view import current_view
from data_catalog.encoding_parts import discard, encode_batch, encoded_rows, plan_encoding
from data_catalog.geoparquet import write_geoparquet
from data_catalog.grid import BLOCK_TILES, Tile, Zone, footprints
from data_catalog.models import load_model, publish_model
from data_catalog.quality_gate import assess
from data_catalog.segments import BLOCK_ROWS, INDEX_SCHEMA, stage_pixels
from data_catalog.sensors import get_sensor
from data_catalog.stac_items import segment_item
from rshash.features import make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.quality import Thresholds
from rshash.scaling import FeatureScaling

SENSOR, SIZE, BANDS = "sentinel-2-l2a", 120, ["blue", "green", "red"]
ZONES = [Zone(number, half) for half in "NS" for number in (31, 32, 33, 34)]
SEGMENTS = 5
BLOCK_COLUMNS = 64
TOTALS = ("all", "passed", "times", "peak, GiB")
STAGES = ("considered", "stale", "encode", "gate", "publish")


def make_model() -> Model:
    extractor = make_extractor({"kind": "mosaiks", "bands": BANDS, "features": 32, "seed": 1})
    torch.manual_seed(1)
    head = HashHead(extractor.dimensions, 64, hidden=8).eval()
    scaling = FeatureScaling(np.zeros(extractor.dimensions, np.float32))
    return Model("mrhash", SENSOR, (), SIZE, extractor, scaling, head)


def tiles_of_blocks(blocks: np.ndarray) -> list[Tile]:
    """The tiles of blocks by number: block after block, the zones in turn."""
    tiles = []
    for number in blocks.tolist():
        place, zone = divmod(number, len(ZONES))
        row, column = divmod(place, BLOCK_COLUMNS)
        for position in range(BLOCK_ROWS):
            up, right = divmod(position, BLOCK_TILES)
            corner = 3000 + BLOCK_TILES * column, 20000 + BLOCK_TILES * row
            tiles.append(Tile(ZONES[zone], corner[0] + right, corner[1] + up, SIZE))
    return tiles


def publish_segment(catalogue: Catalogue, name: str, blocks: np.ndarray, day: str) -> None:
    """Publishes new observations of whole blocks as ingest does, with pixels made up."""
    collection, sensor = f"tiles-{SENSOR}", get_sensor(SENSOR)
    folder = catalogue.asset_folder(collection, name)
    array = stage_pixels(folder, len(blocks), sensor, BANDS, SIZE)
    random = np.random.default_rng(len(catalogue.item_ids(collection)))
    for start in range(0, array.shape[0], 64 * BLOCK_ROWS):
        stop = min(start + 64 * BLOCK_ROWS, array.shape[0])
        shape = (stop - start, *array.shape[1:])
        level = random.integers(200, 8000, (*shape[:2], 1, 1))
        texture = level // 8 * random.random(shape, np.float32)
        array[start:stop] = (level + texture).astype(np.uint16)
    tiles = tiles_of_blocks(blocks)
    numbers = np.repeat(blocks, BLOCK_ROWS)
    # Scenes are far larger than blocks: many tiles have the same.
    scenes = [[f"S2A_MSIL2A_{day}_R108_{n}_{name}"] for n in range(64)]
    index = pd.DataFrame(
        {
            "tile_id": [tile.id for tile in tiles],
            "row": range(len(tiles)),
            "datetime": pd.Timestamp(day, tz="UTC"),
            "clear_fraction": np.float32(0.9),
            "source_scenes": [scenes[n] for n in (numbers % 64).tolist()],
            "considered_scenes": [scenes[n] for n in (numbers % 64).tolist()],
            "state": "valid",
            "reason": pd.Series([None] * len(tiles), dtype=object),
        }
    )
    frame = gpd.GeoDataFrame(index, geometry=footprints(tiles), crs="OGC:CRS84")
    write_geoparquet(folder / "index.parquet", frame, {}, INDEX_SCHEMA)
    (folder / ".lock").unlink()
    hrefs = {one[0]: f"https://example.com/{one[0]}" for one in scenes}
    catalogue.publish(collection, segment_item(name, sensor, frame, BANDS, hrefs, folder))


def build(folder: Path, tiles: int) -> Catalogue:
    catalogue = Catalogue.create(folder)
    publish_model(catalogue, make_model())
    blocks = np.arange(-(-tiles // BLOCK_ROWS))
    for number, part in enumerate(np.array_split(blocks, SEGMENTS)):
        publish_segment(catalogue, f"base-{number}", part, "2024-06-01")
    return catalogue


def night(catalogue: Catalogue) -> dict[str, Any]:
    """Everything that the nightly flow does after the reading; seconds by stage."""
    seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[stage] += time.process_time() - start

    # Tuned for tiles that are 500 times as large.
    feature_cache.BATCH_TILES = 512
    model = load_model(catalogue)
    began = time.perf_counter()
    about = SENSOR, SIZE, tuple(BANDS)
    with timed("stale"):
        view = current_view(catalogue, *about)
    with timed("considered"):
        scenes = [one for texts in view.scenes.dictionary.to_pylist() for one in texts.split("\n")]
        considered = considered_scenes(
            catalogue,
            SENSOR,
            view.tile_ids.to_pylist(),
            scenes,
            bands=BANDS,
            minimum_clear=0.6,
            composite="best",
        )
        assert considered.any_known
    with timed("stale"):
        stale = stale_observations(catalogue, model.model_id, view)
        plan = plan_encoding(catalogue, model.model_id, stale)
    with timed("encode"):
        for number in plan.remaining:
            encode_batch(plan.path, number)
        rows = encoded_rows(plan)

    def check(proposed: ProposedCodes) -> None:
        with timed("gate"):
            assess(catalogue, model, proposed, view, Thresholds())

    with timed("publish"):
        published = publish_code_tables(catalogue, model, rows, check)
        discard(plan)
    seconds["publish"] -= seconds["gate"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    passed = time.perf_counter() - began
    return {
        "stale": len(stale),
        "zones": len(published),
        "seconds": seconds,
        "passed": passed,
        "peak_gib": peak,
    }


def in_a_process(folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--night", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(folder: Path, tiles: int, shares: list[float]) -> list[dict[str, Any]]:
    catalogue = build(folder, tiles)
    blocks = -(-tiles // BLOCK_ROWS)
    found = [{"night": "everything (baseline)", **in_a_process(folder)}]
    show(found[-1], found[0])
    random = np.random.default_rng(1)
    for number, share in enumerate(shares):
        if share:
            some = np.sort(random.choice(blocks, max(1, round(blocks * share / 100)), False))
            publish_segment(catalogue, f"night-{number}", some, f"2024-06-{number + 2:02d}")
        found.append({"night": f"{share:g} % changed", **in_a_process(folder)})
        show(found[-1], found[0])
    return found


def show(row: dict[str, Any], baseline: dict[str, Any]) -> None:
    total, whole = (sum(one["seconds"].values()) for one in (row, baseline))
    stages = " | ".join(f"{row['seconds'][stage]:.2f}" for stage in STAGES)
    print(
        f"| {row['night']} | {row['stale']:,} | {row['zones']} | {stages} | {total:.1f} | "
        f"{row['passed']:.1f} | {whole / total:.1f} | {row['peak_gib']:.2f} |",
        flush=True,
    )


def bookkeeping(folder: Path, tiles: int) -> dict[str, Any]:
    """How much of a re-hash's time on a Prefect server passes without any work."""
    from flows.server import prefect_server

    catalogue = build(folder / "catalogue", tiles)
    feature_cache.BATCH_TILES = 512
    with prefect_server(folder / "prefect"):
        from flows import rehash as module
        from flows.parameters import RehashFlowParameters

        spans: list[tuple[float, float]] = []
        names: list[str] = []

        def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                start = time.perf_counter()
                try:
                    return work(*arguments)
                finally:
                    names.append(name)
                    spans.append((start, time.perf_counter()))

            return run

        for name in (
            "load_model",
            "current_view",
            "stale_observations",
            "plan_encoding",
            "encode_batch",
            "encoded_rows",
            "publish_code_tables",
        ):
            setattr(module, name, watched(name, getattr(module, name)))
        lenient = {"minimum_balance": 0.0, "minimum_agreement": 0.0}
        start = time.perf_counter()
        module.rehash(RehashFlowParameters(catalog=str(catalogue.root), **lenient))
        whole = time.perf_counter() - start
    working, until = 0.0, 0.0
    for begin, end in sorted(spans):
        working += max(0.0, end - max(begin, until))
        until = max(until, end)
    return {
        "tiles": tiles,
        "batches": names.count("encode_batch"),
        "seconds": whole,
        "without_work": whole - working,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--changed", type=float, nargs="+", default=[0, 0.1, 1, 10, 0])
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--server", action="store_true", help="measure a flow's bookkeeping")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--night", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.night:
        print(json.dumps(night(Catalogue.open(options.night))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="nightly-") as folder:
        if options.server:
            found: Any = bookkeeping(Path(folder), options.tiles)
            print(found)
        else:
            print("|", " | ".join(["night", "tiles", "zones", *STAGES, *TOTALS]), "|")
            found = compare(Path(folder) / "catalogue", options.tiles, options.changed)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
