"""The demo: two nights on an embedded world, and a query by tile ID."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import shapely
from rich.console import Console

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.grid import tile_at
from data_catalog.http_server import serve_folder
from data_catalog.pictures import retrieval_sheet
from data_catalog.query import open_codes
from flows.parameters import NightlyParameters
from flows.server import prefect_server
from flows.tables import print_rows, print_similar
from rshash.errors import RshashError

MARKER = ".rshash-demo"
PERIOD = "2024-06-01/2024-09-30"
NEIGHBOURS = 10
console = Console(highlight=False)


def run_demo(folder: Path) -> None:
    """Builds the world, runs two nights on a Prefect server, and answers a query.

    Args:
        folder: Where everything goes. An earlier demo there is replaced.

    Raises:
        RshashError: The folder holds something else.
    """
    started = time.monotonic()
    _make_way(folder)
    catalog, world, picture = folder / "catalogue", folder / "world", folder / "similar.png"
    console.rule("Starting a Prefect server")
    with prefect_server(folder / "prefect", preferred_port=4200) as prefect_address:
        console.print(f"Watch the nights in its UI while they run: {prefect_address}")
        _build(world, night=1)
        with serve_folder(world) as address:
            source = f"{address}/catalog.json"
            console.print(f"The world's STAC catalogue is served at {source}")
            _run_night(1, source, catalog)
            _build(world, night=2)
            _run_night(2, source, catalog)
    tile_id = _answer(catalog, picture)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    console.rule(f"Done in {minutes} min {seconds} s")
    console.print(_epilogue(folder, catalog, picture, tile_id), soft_wrap=True)


def _make_way(folder: Path) -> None:
    taken = folder.is_file() or (folder.exists() and any(folder.iterdir()))
    if taken and not (folder / MARKER).exists():
        raise RshashError(
            f"{folder} holds something that is no demo: name a new folder with --folder."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()


def _build(world: Path, night: int) -> None:
    from flows.progress import Progress

    console.rule(f"Night {night}: what the satellites saw")
    with Progress("render scenes", 0, "files") as bar:
        build_world(world, night, progress=lambda done, total, _: bar.show(done, total))


def _run_night(night: int, source: str, catalog: Path) -> None:
    # Prefect reads its settings when it is imported: not before the server is up.
    from flows.nightly import nightly

    console.rule(f"Night {night}: ingest what is new, re-hash what changed, publish")
    area = json.dumps(shapely.geometry.mapping(world_area()))
    report = nightly(
        NightlyParameters(catalog=str(catalog), source=source, area=area, period=PERIOD)
    )
    print_rows(report["ingested"], "Ingested")
    print_rows(report["published"], "Code tables published")


def _answer(catalog: Path, picture: Path) -> str:
    console.rule("Which places look like this one?")
    catalogue = Catalogue.open(catalog)
    codes = open_codes(catalogue)
    tile_id = tile_at(*world_area().centroid.coords[0]).id
    found = codes.search.like_tiles([tile_id], NEIGHBOURS)
    print_similar(found, codes.bits)
    retrieval_sheet(catalogue, codes, found.frame_of_one(), picture)
    return tile_id


def _epilogue(folder: Path, catalog: Path, picture: Path, tile_id: str) -> str:
    return (
        f"The catalogue:      {catalog}  (STAC: {catalog / 'catalog.json'})\n"
        f"The picture:        {picture}\n"
        f"Explore the tiles:  .venv/bin/rshash serve --catalog {catalog}, "
        "then open http://127.0.0.1:8080\n"
        f"What is published:  .venv/bin/rshash catalog --catalog {catalog}\n"
        f"Query another tile: .venv/bin/rshash similar {tile_id} --catalog {catalog} "
        f"--picture {folder / 'another.png'}\n"
        f"The tile of a place: .venv/bin/rshash tile LON LAT\n"
        f"The Prefect UI with both nights: PREFECT_HOME={folder / 'prefect'} "
        "PREFECT_SERVER_ANALYTICS_ENABLED=false .venv/bin/prefect server start, "
        "then open http://127.0.0.1:4200"
    )
