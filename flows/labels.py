"""Labels that have to be read before they can be used."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import Catalogue
from data_catalog.land_cover import publish_land_cover
from data_catalog.training import known_tiles
from flows.artifacts import show_table
from flows.progress import Progress


@task(task_run_name="land cover from {collection}", cache_policy=NO_CACHE)
def read_land_cover(
    catalog: str, source: str, collection: str, sensor: str, tile_size: int
) -> dict[str, Any]:
    """Publishes the land cover of the tiles that a sensor was asked for, where it is not yet."""
    catalogue = Catalogue.open(catalog)
    tiles = known_tiles(catalogue, sensor, tile_size)
    with Progress(f"land cover {collection}", len(tiles)) as progress:
        report = publish_land_cover(catalogue, source, collection, tiles, progress.advance)
    summary = asdict(report)
    failures = summary.pop("failures")
    show_table(
        "land-cover", [summary | {"failed maps": len(failures)}], f"Land cover, {collection}"
    )
    if failures:
        table = [{"map": one, "cause": cause} for one, cause in sorted(failures.items())]
        show_table("failed-maps", table, f"Maps of {collection} that could not be read")
    return summary
