"""Publishers into a bucket in processes of their own: that race, or are killed there."""

import itertools
import os
import signal
import threading
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import obstore
import pystac
from killed_publishing import night
from published_world import make_model

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import publish_code_tables
from data_catalog.errors import CatalogueError

TILES = "tiles-sentinel-2-l2a"


def publish(catalogue: Catalogue, item_id: str, text: str, supersedes: str | None = None) -> None:
    folder = catalogue.asset_folder(TILES, item_id)
    (folder / "data.txt").write_text(text)
    item = pystac.Item(item_id, None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    item.add_asset("data", pystac.Asset("./data.txt"))
    catalogue.publish(TILES, item, supersedes=supersedes)


def race(
    settings: dict[str, str], address: str, who: str, rounds: int, start: Barrier, done: Connection
) -> None:
    """Publishes in every round an item of its own, and one that all publishers want to publish.

    Sends the number of the rounds that it won, and what it was told in the others.
    """
    os.environ.update(settings)
    catalogue = Catalogue.open(address)
    won: list[int] = []
    told: dict[int, Any] = {}
    for number in range(rounds):
        before = f"wanted-v{number}" if number else None
        start.wait()
        try:
            publish(catalogue, f"wanted-v{number + 1}", who, before)
            won.append(number)
        except CatalogueError as error:
            told[number] = str(error)
        publish(catalogue, f"own-{who}-{number}", who)
    done.send((won, told))


def publish_night(
    settings: dict[str, str],
    address: str,
    number: int,
    moment: int | None,
    delay: float,
    done: Connection,
) -> None:
    """Publishes a night's codes; is killed some time after a write began."""
    os.environ.update(settings)
    model, writes, put = make_model(), itertools.count(1), obstore.put

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(writes) == moment:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return put(*arguments, **options)

    obstore.put = counted
    publish_code_tables(Catalogue.open(address), model, night(number))
    done.send(next(writes) - 1)
