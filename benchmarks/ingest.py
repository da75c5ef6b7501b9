"""How fast, how frugal and how small is an ingest over a slow line?

A Sentinel-2 scene of six bands and its mask is served over HTTP on loopback with 40 ms of latency.
rshash reads and writes adjacent tiles and scattered ones; beside it, in the same run, the same
tiles are read, and not written, as one would by hand: a window per tile and asset with rasterio,
and odc-stac per tile, both on 8 threads. Every figure is taken in a process of its own.

Also shown: what writing costs, where processors and where lines of some speed are the limit; bytes
fetched beside the blocks of the files that hold the tiles, threads beside speed, memory beside
area, and what a second night costs with 2 % of new scenes.

    python benchmarks/ingest.py --pixels 6144
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window, from_bounds

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "data_catalog"))

from fault_server import Fault, FaultServer, fault_server  # noqa: E402
from tiny_source import TinySource  # noqa: E402

from data_catalog.assets import union_of  # noqa: E402
from data_catalog.catalogue import Catalogue  # noqa: E402
from data_catalog.grid import Tile, Zone, blocks_of  # noqa: E402
from data_catalog.ingest import (  # noqa: E402
    WORKERS,
    in_flight,
    ingest_block,
    publish_segment,
    read_planned_block,
)
from data_catalog.planning import IngestPlan, plan_ingest  # noqa: E402
from data_catalog.rasters import GDAL_SETTINGS  # noqa: E402

LATENCY_S = 0.04
LINES = (25e6, 50e6, 100e6)
"""Bytes a second: 200, 400 and 800 Mbit/s."""

THREADS = 8
SIDE = 1920
ZONE = Zone(32, "N")
WEST, NORTH = 256 * SIDE, 2496 * SIDE
BANDS = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B11": 20, "B12": 20, "SCL": 20}
PERIOD = "2024"
MOMENT = datetime(2024, 6, 18, 10, 16, tzinfo=UTC)


def ground(pixels: int, seed: int) -> NDArray[np.uint16]:
    """Numbers that compress as those of a satellite do: to about three quarters."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(2500, 600, (pixels // 64 + 1, pixels // 64 + 1))
    smooth = np.kron(coarse, np.ones((64, 64)))[:pixels, :pixels]
    return np.clip(smooth + rng.normal(0, 60, smooth.shape), 1, 60000).astype(np.uint16)


def bands_of(pixels: int) -> dict[str, tuple[NDArray[Any], int]]:
    return {
        key: (ground(pixels * 10 // resolution, number), resolution)
        for number, (key, resolution) in enumerate(BANDS.items())
        if key != "SCL"
    }


def clear(pixels: int) -> NDArray[np.uint8]:
    return np.full((pixels // 2, pixels // 2), 4, np.uint8)


class Workload:
    """Tiles of the scene, and where it is served."""

    def __init__(self, folder: Path, address: str, pixels: int, tiles: list[Tile]) -> None:
        self.folder, self.address, self.pixels, self.tiles = folder, address, pixels, tiles

    @property
    def source(self) -> str:
        return f"{self.address}/catalog.json"

    def hrefs(self) -> dict[str, str]:
        return {key: f"{self.address}/sentinel-2-l2a/scene/{key}.tif" for key in BANDS}

    def area(self) -> str:
        """The middles of the tiles."""
        return " ".join("{:.6f},{:.6f}".format(*tile.centre) for tile in self.tiles)


def adjacent(across: int) -> list[Tile]:
    column, row = WEST // SIDE, NORTH // SIDE - 1
    return [Tile(ZONE, column + x, row - y) for x in range(across) for y in range(across)]


def scattered(count: int, across: int) -> list[Tile]:
    return random.Random(0).sample(adjacent(across), count)


def window_per_tile(work: Workload) -> dict[str, float]:
    return windows(work, [tile.bounds for tile in work.tiles])


def window_per_block(work: Workload) -> dict[str, float]:
    blocks = blocks_of(work.tiles).values()
    return windows(work, [union_of([tile.bounds for tile in tiles]) for tiles in blocks])


def windows(work: Workload, bounds: list[tuple[int, int, int, int]]) -> dict[str, float]:
    hrefs = work.hrefs()

    def read(part: tuple[int, int, int, int]) -> None:
        with rasterio.Env(**GDAL_SETTINGS):
            for href in hrefs.values():
                with rasterio.open(href) as file:
                    file.read(1, window=from_bounds(*part, file.transform))

    return timed(work, lambda: in_threads(read, bounds, THREADS))


def odc_per_tile(work: Workload) -> dict[str, float]:
    import odc.stac
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True)
    item = pystac.Item.from_file(str(work.folder / "sentinel-2-l2a/scene/scene.json"))
    for key, href in work.hrefs().items():
        item.assets[key].href = href

    def read(tile: Tile) -> None:
        box = GeoBox.from_bbox(tile.bounds, crs=f"EPSG:{ZONE.epsg}", resolution=10)
        odc.stac.load([item], bands=list(BANDS), geobox=box, resampling="nearest")

    return timed(work, lambda: in_threads(read, work.tiles, THREADS))


def planned(work: Workload, folder: str) -> tuple[Catalogue, IngestPlan]:
    catalogue = Catalogue.open_or_create(Path(folder) / "catalogue")
    plan = plan_ingest(catalogue, work.source, "sentinel-2-l2a", work.area(), PERIOD)
    plan.save(catalogue)
    return catalogue, plan


def rshash_ingest(work: Workload, workers: int = WORKERS) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        catalogue, plan = planned(work, folder)

        def run() -> None:
            in_threads(partial(ingest_block, plan.folder), plan.block_ids, workers)
            publish_segment(catalogue, plan)

        return timed(work, run)


def rshash_read(work: Workload) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        _, plan = planned(work, folder)

        def read(block_id: str) -> None:
            with in_flight(plan, block_id):
                read_planned_block(plan, block_id)

        return timed(work, lambda: in_threads(read, plan.block_ids, WORKERS))


def in_threads(job: Callable[[Any], object], things: list[Any], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job, thing) for thing in things]:
            future.result()


def timed(work: Workload, job: Callable[[], object]) -> dict[str, float]:
    before, busy = time.perf_counter(), time.process_time()
    job()
    seconds, busy = time.perf_counter() - before, time.process_time() - busy
    return {
        "tiles/s": len(work.tiles) / seconds,
        "cores": busy / seconds,
        "peak MiB": peak_mib(),
    }


def peak_mib() -> float:
    """Of this process; what getrusage tells includes the one that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def nights(folder: Path, scenes: int, pixels: int) -> dict[str, float]:
    """Seconds of a first night, and of a second for which 2 % of the scenes are new."""
    source = TinySource(folder / "nights")
    bands, mask = bands_of(pixels), clear(pixels)

    def add(number: int, days: int) -> None:
        name, west = f"scene-{number}-{days}", WEST + number % 10 * pixels * 10
        north = NORTH - number // 10 * pixels * 10
        moment = MOMENT + timedelta(days=days)
        source.sentinel_2(name, ZONE.epsg, west, north, bands, mask, moment, s2__mgrs_tile=name)

    for number in range(scenes):
        add(number, 0)
    seconds, area = [], area_of_scenes(scenes, pixels)
    with fault_server(source.folder, [latency()]) as server, tempfile.TemporaryDirectory() as out:
        catalogue = Catalogue.open_or_create(Path(out) / "catalogue")
        for night in range(2):
            path = source.write()
            for file in source.folder.rglob("scene-*.json"):
                file.write_text(
                    file.read_text().replace(
                        '"./', f'"{server.address}/sentinel-2-l2a/{file.stem}/'
                    )
                )
            started = time.perf_counter()
            one_night(catalogue, str(path), area)
            seconds.append(time.perf_counter() - started)
            for number in range(0, scenes, 50):
                add(number, night + 1)
    return {"first": seconds[0], "second": seconds[1]}


def area_of_scenes(scenes: int, pixels: int) -> str:
    across = pixels * 10 // SIDE
    tiles = [
        Tile(ZONE, WEST // SIDE + n % 10 * across + x, NORTH // SIDE - 1 - n // 10 * across - y)
        for n in range(scenes)
        for x in range(across)
        for y in range(across)
    ]
    return Workload(Path(), "", pixels, tiles).area()


def one_night(catalogue: Catalogue, source: str, area: str) -> None:
    plan = plan_ingest(catalogue, source, "sentinel-2-l2a", area, PERIOD)
    plan.save(catalogue)
    in_threads(partial(ingest_block, plan.folder), plan.block_ids, WORKERS)
    publish_segment(catalogue, plan)


def bytes_of_blocks(work: Workload) -> int:
    """Compressed bytes of the files' own blocks that hold the tiles, each counted once."""
    total = 0
    for key in BANDS:
        with rasterio.open(work.folder / f"sentinel-2-l2a/scene/{key}.tif") as file:
            high, wide = file.block_shapes[0]
            blocks = set()
            for tile in work.tiles:
                window = from_bounds(*tile.bounds, file.transform).round_offsets().round_lengths()
                blocks |= set(blocks_in(window, wide, high))
            tags = [file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1) for x, y in blocks]
            total += sum(map(int, tags))
    return total


def blocks_in(window: Window, wide: int, high: int) -> list[tuple[int, int]]:
    rows, columns = window.toslices()
    return [
        (x, y)
        for y in range(rows.start // high, -(-rows.stop // high))
        for x in range(columns.start // wide, -(-columns.stop // wide))
    ]


def latency() -> Fault:
    return Fault("*.tif", "latency", at_most=None, seconds=LATENCY_S)


def apart(job: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
    """The result of a job that runs in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(job, *given).result()


def best_of(rounds: int, job: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
    return max((apart(job, *given) for _ in range(rounds)), key=lambda found: found["tiles/s"])


def compare(work: Workload, server: FaultServer, title: str, rounds: int) -> dict[str, Any]:
    methods: dict[str, Callable[[Workload], dict[str, float]]] = {
        "rshash, read and written": rshash_ingest,
        "rshash, read only": rshash_read,
        "rasterio, block by block, 8 threads": window_per_block,
        "window per tile, 8 threads": window_per_tile,
        "odc-stac per tile, 8 threads": odc_per_tile,
    }
    found = {name: best_of(rounds, method, work) for name, method in methods.items()}
    ours, needed = found["rshash, read and written"], bytes_of_blocks(work)
    server.misbehave(latency())
    apart(rshash_ingest, work)
    asked = [length_of(request.bytes) for request in server.requests("*.tif")]
    print(f"\n{title}: {len(work.tiles)} tiles of {len(BANDS)} assets, {LATENCY_S * 1e3:.0f} ms")
    print(f"{'':36}{'tiles/s':>10}{'cores':>8}{'rshash is':>12}")
    for name, row in found.items():
        ratio = ours["tiles/s"] / row["tiles/s"]
        print(f"{name:36}{row['tiles/s']:>10.1f}{row['cores']:>8.2f}{ratio:>11.2f}x")
    print(
        f"{sum(asked) / 1e6:.1f} MB in {len(asked)} requests: "
        f"{sum(asked) / needed:.3f} of the blocks that hold the tiles"
    )
    return found | {"bytes ratio": sum(asked) / needed}


def over_lines(work: Workload, server: FaultServer, rounds: int) -> dict[str, Any]:
    """What writing costs where the line, not the processor, is what reading waits for."""
    print(f"\n{'line, MB/s':>10}{'written/s':>11}{'cores':>8}{'only read/s':>13}{'share':>8}")
    figures = {}
    for rate in LINES:
        server.misbehave(Fault("*.tif", "line", at_most=None, seconds=LATENCY_S, rate=rate))
        ours, read = (best_of(rounds, job, work) for job in (rshash_ingest, rshash_read))
        share = ours["tiles/s"] / read["tiles/s"]
        figures[f"line of {rate / 1e6:.0f} MB/s"] = {"written": ours, "read": read, "share": share}
        print(
            f"{rate / 1e6:>10.0f}{ours['tiles/s']:>11.1f}{ours['cores']:>8.2f}"
            f"{read['tiles/s']:>13.1f}{share:>8.2f}"
        )
    server.misbehave(latency())
    return figures


def length_of(asked: str) -> int:
    """Bytes of a range such as ``bytes=0-99``."""
    first, last = asked.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pixels", type=int, default=6144, help="across the scene")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    across = options.pixels * 10 // SIDE
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = TinySource(folder / "scene")
        bands = bands_of(options.pixels)
        source.sentinel_2("scene", ZONE.epsg, WEST, NORTH, bands, clear(options.pixels), MOMENT)
        source.write()
        with fault_server(source.folder, [latency()]) as server:
            new = partial(Workload, source.folder, server.address, options.pixels)
            for title, tiles in {
                "adjacent": adjacent(across),
                "scattered": scattered(min(64, across**2 // 4), across),
            }.items():
                figures[title] = compare(new(tiles), server, title, options.rounds)
            figures |= over_lines(new(adjacent(across)), server, options.rounds)
            print(f"\n{'threads':>10}{'tiles/s':>10}{'cores':>8}")
            for workers in (1, 2, 4, 8, 16):
                row = best_of(options.rounds, rshash_ingest, new(adjacent(across)), workers)
                figures[f"{workers} threads"] = row
                print(f"{workers:>10}{row['tiles/s']:>10.1f}{row['cores']:>8.2f}")
            print(f"\n{'tiles':>10}{'peak MiB':>10}")
            for size in (across // 4, across // 2, across):
                row = apart(rshash_ingest, new(adjacent(size)))
                figures[f"memory of {size**2} tiles"] = row
                print(f"{size**2:>10}{row['peak MiB']:>10.0f}")
        figures["nights"] = night = apart(nights, folder, 200, 1536)
    share = night["second"] / night["first"]
    print(f"\nfirst night {night['first']:.2f} s, second {night['second']:.2f} s: {share:.1%}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
