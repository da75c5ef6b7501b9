"""The demo: two nights on an embedded world, and a query by tile ID, all of it real but the landscape."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

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
