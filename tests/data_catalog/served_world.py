"""A service of a tiny published world, on loopback, for as long as tests last."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
import zarr
from published_world import (
    BANDS,
    SENSOR,
    SIZE,
    index,
    make_model,
    publish_segment,
    random_codes,
    tiles,
)

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.models import publish_model, publish_pseudo_labels
from data_catalog.sensors import get_sensor
from data_catalog.service.app import make_app

PLACES = tiles(40)
CODES = random_codes(8, seed=5)[np.arange(len(PLACES)) % 8]

LABELS = np.arange(len(PLACES)) % 4


def publish_world(root: Path) -> Catalogue:
    """A catalogue of 40 tiles with pixels, pseudo-labels and codes."""
    catalogue = Catalogue.create(root)
    publish_segment(catalogue, "segment-1", index(PLACES))
    pixels = zarr.open_array(
        root / f"tiles-{SENSOR}" / "segment-1" / "pixels.zarr" / "reflectance", mode="r+"
    )
    side = SIZE // get_sensor(SENSOR).resolution
    for row in range(len(PLACES)):
        slope = np.linspace(300, 2500, side)
        pixels[row] = np.stack([slope + 40 * row + 300 * band for band, _ in enumerate(BANDS)])[
            :, None, :
        ].repeat(side, axis=1)
    model = make_model()
    publish_model(catalogue, model)
    shares = np.full((len(PLACES), 4), 0.1, np.float32)
    shares[np.arange(len(PLACES)), LABELS] = 0.7
    publish_pseudo_labels(catalogue, model, [tile.id for tile in PLACES], shares)
    publish_code_tables(catalogue, model, code_rows(index(PLACES), CODES))
    return catalogue


@contextmanager
def served(catalogue: Catalogue, **options: object) -> Iterator[str]:
    """Address of a real server on loopback."""
    app = make_app(catalogue, poll_seconds=0.1, **options)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended before it started"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
