"""The demo: two nights on an embedded world, and a query by tile ID, all of it real but the landscape."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.world import World
from data_catalog.http_server import serve_folder
from data_catalog.pictures import retrieval_sheet
from data_catalog.query import open_codes
from flows.parameters import NightlyParameters
from flows.server import prefect_server
from rshash.errors import RshashError

MARKER = ".rshash-demo"
console = Console(highlight=False)


def run_demo(folder: Path, small: bool = False) -> None:
    """Builds the world, runs two nights on a Prefect server, and answers a query.

    Args:
        folder: Where everything goes. An earlier demo there is replaced.
        small: A quarter of the world.

    Raises:
        RshashError: The folder holds something else.
    """
    started = time.monotonic()
    _make_way(folder)
