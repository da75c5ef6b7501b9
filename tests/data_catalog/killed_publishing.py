"""Versions of code tables, published by a process of its own that is killed there."""

import itertools
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from published_world import index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    code_rows,
    codes_of,
    collection_of,
    publish_code_tables,
    published_table,
)
from data_catalog.grid import Zone

FIRST_DAY = pd.Timestamp("2024-06-01", tz="UTC")
PLACES = [*tiles(8), *tiles(8, Zone(33, "N"))]


def night(number: int) -> pd.DataFrame:
    """Codes of all tiles as a night gives them."""
    day = str(FIRST_DAY + pd.Timedelta(days=number))[:10]
    return code_rows(index(PLACES, day), random_codes(len(PLACES), seed=number))


def publish(root: Path, number: int, moment: int | None, results: Connection) -> None:
    """Publishes a night's codes in a process of its own, which kills itself at a moment."""
    moments = itertools.count(1)
    model = make_model()

    def count(event: str, _: Any) -> None:
        if event.startswith(("open", "os.", "shutil.")) and next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    began = time.monotonic()
    results.send("begun")
    publish_code_tables(Catalogue.open(root), model, night(number))
    results.send((next(moments), time.monotonic() - began))


def nights_of(root: Path | str, model_id: str) -> list[int]:
    """The night that each current table is of; fails where one is not whole."""
    catalogue = Catalogue.open(root)
    nights = []
    for item in catalogue.items(collection_of(model_id)):
        table = published_table(catalogue, item)
        number = (table["datetime"].iloc[0] - FIRST_DAY).days
        expected = night(number)
        expected = expected[expected["tile_id"].isin(table["tile_id"])].sort_values("tile_id")
        assert list(table["tile_id"]) == list(expected["tile_id"]) and len(table) == 8
        assert np.array_equal(codes_of(table, 64), codes_of(expected, 64))
        nights.append(number)
    return nights


class Reader(threading.Thread):
    """Reads the current tables all the time, with pauses for a server that answers one at a time.

    Attributes:
        reads: The nights that it found.
        failure: What it could not read.
    """

    def __init__(self, root: Path | str, model_id: str, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.root, self.model_id, self._pause = root, model_id, pause
        self._ended = threading.Event()
        self.reads: list[list[int]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ended.wait(self._pause):
                self.reads.append(nights_of(self.root, self.model_id))
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        self._ended.set()
        self.join()
