"""The ingest flow: from a STAC search to segments of co-registered tiles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from data_catalog.catalogue import Catalogue
from data_catalog.errors import SourceError
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import IngestPlan, plan_ingest
from flows.artifacts import show_table
from flows.checks import check_ingest
from flows.parameters import IngestFlowParameters
from flows.progress import Progress

READERS = 4
"""Threads that read blocks at once; each keeps several requests in flight."""

TASKS_AT_MOST = 64
"""Blocks are batched into this many tasks at the most: bookkeeping costs milliseconds a task."""


@task(task_run_name="plan {sensor}", cache_policy=NO_CACHE)
def plan_sensor(parameters: IngestFlowParameters, sensor: str) -> tuple[dict[str, int], Path]:
    """Searches one sensor's scenes and tells what is new; saves the plan if it is to be read."""
    catalogue = Catalogue.open_or_create(parameters.catalog)
    plan = plan_ingest(
        catalogue,
        parameters.source,
        sensor,
        parameters.area,
        parameters.period,
        tile_size=parameters.tile_size,
        bands=list(parameters.bands_of(sensor)),
        minimum_clear=parameters.minimum_clear,
    )
    if not (parameters.plan or plan.is_empty):
        plan.save(catalogue)
    return plan.summary(), plan.folder


@task(
    task_run_name="read {sensor}, {block_ids[0]} …",
    retries=2,
    retry_delay_seconds=10,
    cache_policy=NO_CACHE,
)
def read_blocks(plan_folder: Path, sensor: str, block_ids: list[str]) -> dict[str, Any]:
    """Reads and writes a batch of blocks; counts tiles by state, names scenes that failed."""
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for block_id in block_ids:
        report = ingest_block(plan_folder, block_id)
        counts.update(valid=report.valid, invalid=report.invalid)
        counts.update(report.reasons)
        failures |= report.failures
    return {"blocks": len(block_ids), "counts": dict(counts), "failures": failures}


@task(task_run_name="publish segment of {sensor}", cache_policy=NO_CACHE)
def publish(catalog: str, sensor: str, plan_folder: Path) -> str:
    """Publishes what was read as one segment."""
    return publish_segment(Catalogue.open(catalog), IngestPlan.load(plan_folder))


@flow(name="ingest", task_runner=ThreadPoolTaskRunner(max_workers=READERS))  # type: ignore[arg-type]
def ingest(parameters: IngestFlowParameters) -> list[dict[str, Any]]:
    """Fetches new imagery of an area as co-registered tiles.

    Returns:
        One row per sensor: what was planned and what became of it.

    Raises:
        CatalogueError: The catalogue's folder holds something else, or is not writable.
        SourceError: The primary sensor's scenes cannot be searched, or there are none. Another
            sensor's are missed for this run, and its row says why.
    """
    check_ingest(parameters)
    plans = {sensor: _plan(parameters, sensor) for sensor in parameters.sensors}
    report = [{"sensor": sensor, **summary} for sensor, (summary, _) in plans.items()]
    show_table("plan", report, "Plan: what is new and will be read")
    if parameters.plan:
        return report
    for row, (_, folder) in zip(report, plans.values(), strict=True):
        if folder and row["tiles"]:
            row.update(_ingest_sensor(parameters.catalog, str(row["sensor"]), folder))
    show_table("ingested", report, "Ingested")
    return report


def _plan(parameters: IngestFlowParameters, sensor: str) -> tuple[dict[str, Any], Path | None]:
    try:
        return plan_sensor(parameters, sensor)
    except SourceError as error:
        if sensor == parameters.sensors[0]:
            raise
        return {"problem": str(error)}, None


def _ingest_sensor(catalog: str, sensor: str, plan_folder: Path) -> dict[str, Any]:
    block_ids = IngestPlan.load(plan_folder).block_ids
    size = -(-len(block_ids) // TASKS_AT_MOST)
    batches = [block_ids[i : i + size] for i in range(0, len(block_ids), size)]
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    with Progress(f"read {sensor}", len(block_ids), "blocks") as progress:
        for future in as_completed([read_blocks.submit(plan_folder, sensor, b) for b in batches]):
            done = future.result()
            counts.update(done["counts"])
            failures |= done["failures"]
            progress.advance(done["blocks"])
    if failures:
        table = [{"scene": scene, "cause": cause} for scene, cause in sorted(failures.items())]
        show_table("failed-scenes", table, f"Scenes of {sensor} that failed")
        counts["unreadable scenes"] = len(failures)
    return {"segment": publish(catalog, sensor, plan_folder), **counts}
