"""An ingest that runs in a process of its own and is killed there."""

import itertools
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import shapely
from ingesting import S2
from two_blocks import tiles_of

from data_catalog.catalogue import Catalogue
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import IngestPlan, plan_ingest

READERS = 2


def four_blocks() -> shapely.MultiPoint:
    """Places over the western scene, which has room for four blocks of tiles of 240 m."""
    return shapely.MultiPoint([tile.centre for tile in tiles_of("west")])


class Done(NamedTuple):
    """What an ingest that came to its end did."""

    read: list[str]
    skipped: list[str]
    seconds: float
    moments: int


def ingest(root: Path, address: str, moment: int | None, results: Connection) -> None:
    """Ingests in a process of its own, which kills itself at a moment."""
    moments = itertools.count(1)

    def count(event: str, _: Any) -> None:
        if event.startswith(("open", "os.", "shutil.", "socket.")) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    results.send("begun")
    sys.addaudithook(count)
    began = time.monotonic()
    catalogue = Catalogue.open_or_create(root)
    plan = plan_ingest(catalogue, address, S2, four_blocks(), "2024", bands=["red"], tile_size=240)
    reports = []
    if not plan.is_empty:
        folder = plan.save(catalogue)
        with ThreadPoolExecutor(READERS) as pool:
            reports = list(pool.map(ingest_block, [folder] * len(plan.blocks), plan.block_ids))
        publish_segment(catalogue, IngestPlan.load(folder))
    assert not any(report.failures for report in reports)
    blocks = list(zip(plan.block_ids, reports, strict=True))
    results.send(
        Done(
            [block_id for block_id, report in blocks if report.seconds > 0],
            [block_id for block_id, report in blocks if report.seconds == 0],
            time.monotonic() - began,
            next(moments),
        )
    )
