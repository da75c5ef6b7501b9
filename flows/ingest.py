"""The ingest flow: from a STAC search to segments of co-registered tiles."""

from __future__ import annotations

import shutil
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from rich.filesize import decimal

from data_catalog.catalogue import Catalogue
from data_catalog.catalogue_address import working_folder
from data_catalog.costs import check_room
from data_catalog.errors import CatalogueError, SourceError
from data_catalog.ingest import WORKERS, ingest_block, publish_segment
from data_catalog.planning import IngestPlan, is_finished, plan_ingest
from data_catalog.polite import share_requests
from data_catalog.profiles import requests_at_once
from data_catalog.redaction import redacted
from data_catalog.segments import collection_of
from flows.artifacts import show_table, show_text
from flows.assets import announce
from flows.checks import check_ingest
from flows.parameters import IngestFlowParameters
from flows.progress import Progress
from flows.run_pages import address_of, show_invalid, tell_of_failure
from flows.runner_parameters import RunnerParameters
from flows.runners import task_runner
from flows.stages import Stages
from flows.tables import duration, markdown_table

ESTIMATES = ("bytes", "stored_bytes", "duration")
"""What only a plan tells."""

BLOCKS_PER_TASK = 4
"""Bookkeeping costs milliseconds a task; blocks that follow one another share what is read."""


@task(task_run_name="plan {sensor}", cache_policy=NO_CACHE)
def plan_sensor(parameters: IngestFlowParameters, sensor: str) -> IngestPlan:
    """Searches one sensor's scenes and tells what is new; writes nothing."""
    try:
        return plan_ingest(
            Catalogue.open_or_create(parameters.catalog),
            parameters.source,
            sensor,
            parameters.area,
            parameters.period,
            tile_size=parameters.tile_size,
            bands=list(parameters.bands_of(sensor)),
            minimum_clear=parameters.minimum_clear,
            composite=parameters.composite,
        )
    except SourceError as error:
        raise SourceError(f"{sensor}: {error}") from None


@task(
    task_run_name="read {sensor}, {block_ids[0]} …",
    retries=2,
    retry_delay_seconds=10,
    cache_policy=NO_CACHE,
)
def read_blocks(
    plan_folder: Path, sensor: str, block_ids: list[str], processes: int = 1, planner: str = ""
) -> dict[str, Any]:
    """Reads and writes a batch of blocks; counts tiles by state, names scenes that failed.

    Args:
        plan_folder: Where the plan is saved.
        sensor: For people.
        block_ids: Blocks of the plan.
        processes: How many processes ask the source at once.
        planner: The machine that saved the plan.

    Raises:
        CatalogueError: A block cannot be written, or another machine does not see the plan.
    """
    share_requests(processes)
    _check_seen(plan_folder, planner)
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    for block_id in block_ids:
        try:
            report = ingest_block(plan_folder, block_id)
        except (CatalogueError, OSError):
            if is_finished(plan_folder):
                break
            raise
        counts.update(valid=report.valid, invalid=report.invalid)
        counts.update(report.reasons)
        failures |= report.failures
    return {"blocks": len(block_ids), "counts": dict(counts), "failures": failures}


@task(task_run_name="publish segment of {sensor}", cache_policy=NO_CACHE)
def publish(catalog: str, sensor: str, plan_folder: Path) -> str:
    """Publishes what was read as one segment, unless another run has."""
    if is_finished(plan_folder):
        shutil.rmtree(plan_folder, ignore_errors=True)
        return plan_folder.name
    return publish_segment(Catalogue.open(catalog), IngestPlan.load(plan_folder))


@flow(name="ingest", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def ingest(parameters: IngestFlowParameters) -> list[dict[str, Any]]:
    """Fetches new imagery of an area as co-registered tiles.

    Returns:
        One row per sensor: what was planned and what became of it.

    Raises:
        CatalogueError: The catalogue's folder holds something else, is not writable, or its disk
            has no room for the tiles.
        SourceError: The primary sensor's scenes cannot be searched, or there are none. Another
            sensor's are missed for this run, and its row says why.
    """
    check_ingest(parameters)
    stages = Stages()
    with stages.stage("search and plan"):
        plans = {sensor: _plan(parameters, sensor) for sensor in parameters.sensors}
    planned: list[dict[str, Any]] = [
        {"sensor": sensor} | ({"problem": plan} if isinstance(plan, str) else plan.summary())
        for sensor, plan in plans.items()
    ]
    show_table("plan", planned, "Plan: what is new and will be read", _planned(planned))
    if parameters.plan:
        return planned
    check_room(
        working_folder(parameters.catalog), sum(row.get("stored_bytes", 0) for row in planned)
    )
    report = []
    for row, plan in zip(planned, plans.values(), strict=True):
        report.append({key: value for key, value in row.items() if key not in ESTIMATES})
        if isinstance(plan, IngestPlan) and not plan.is_empty:
            report[-1] |= _ingest_sensor(parameters, plan, stages)
    _show_report(parameters.catalog, report, stages)
    return report


def _planned(rows: list[dict[str, Any]]) -> str:
    sums = {key: sum(row.get(key, 0) for row in rows) for key in ("scenes", "tiles", *ESTIMATES)}
    if not sums["tiles"]:
        return "Nothing is new."
    return (
        f"{sums['scenes']:,} scenes, {sums['tiles']:,} tiles, {decimal(sums['bytes'])} "
        f"to fetch, about {duration(sums['duration'])}."
    )


def _show_report(catalog: str, report: list[dict[str, Any]], stages: Stages) -> None:
    catalogue = Catalogue.open_or_create(catalog)
    published = [
        address_of(catalogue, collection_of(row["sensor"]), row["segment"])
        for row in report
        if "segment" in row
    ]
    text = [
        f"# Ingested\n\n{markdown_table(report)}",
        f"## Durations\n\n{markdown_table(stages.rows())}",
        *([f"Published: {', '.join(published)}."] if published else []),
    ]
    valid, invalid = (sum(row.get(state, 0) for row in report) for state in ("valid", "invalid"))
    summary = f"{valid:,} tiles read, {invalid:,} invalid, in {stages.total()}."
    show_text("ingested", "\n\n".join(text) + "\n", summary)


def _plan(parameters: IngestFlowParameters, sensor: str) -> IngestPlan | str:
    """The plan, or why there is none."""
    try:
        return plan_sensor(parameters, sensor)
    except SourceError as error:
        if sensor == parameters.sensors[0]:
            raise
        return str(error)


def _ingest_sensor(
    parameters: IngestFlowParameters, plan: IngestPlan, stages: Stages
) -> dict[str, Any]:
    catalog, sensor = parameters.catalog, plan.sensor_id
    plan_folder = plan.save(Catalogue.open_or_create(catalog))
    with stages.stage(f"read {sensor}"):
        counts = _read_all(parameters, plan, plan_folder)
    with stages.stage(f"publish {sensor}"):
        segment_id = publish(catalog, sensor, plan_folder)
    catalogue = Catalogue.open(catalog)
    if segment_id == plan.segment_id:
        announce(catalogue, collection_of(sensor), [segment_id])
    show_invalid(catalogue, sensor, segment_id)
    return {"segment": segment_id, **counts}


def _read_all(
    parameters: IngestFlowParameters, plan: IngestPlan, plan_folder: Path
) -> dict[str, int]:
    """Reads a plan's blocks; counts tiles by state and reason, and scenes that failed."""
    sensor, block_ids = plan.sensor_id, plan.block_ids
    batches = [
        block_ids[i : i + BLOCKS_PER_TASK] for i in range(0, len(block_ids), BLOCKS_PER_TASK)
    ]
    counts: Counter[str] = Counter()
    failures: dict[str, str] = {}
    with (
        Progress(f"read {sensor}", len(block_ids), "blocks") as progress,
        task_runner(_within_reach(parameters, plan), WORKERS) as runner,
    ):
        given = {"plan_folder": plan_folder, "sensor": sensor, "processes": runner.processes}
        most = requests_at_once(plan.profile)
        # Each process asks at least once at a time: no more of them are at work than may ask.
        wave = most if runner.processes > most else len(batches)
        for start in range(0, len(batches), wave):
            futures = [
                runner.submit(read_blocks, **given, block_ids=batch, planner=socket.gethostname())
                for batch in batches[start : start + wave]
            ]
            for future in as_completed(futures):
                done = future.result()
                counts.update(done["counts"])
                failures |= done["failures"]
                progress.advance(done["blocks"])
    if failures:
        table = [{"scene": scene, "cause": cause} for scene, cause in sorted(failures.items())]
        title = f"Scenes of {sensor} that {redacted(parameters.source)} did not give"
        title += ": the next run asks again"
        show_table(f"failed-scenes-{sensor}", table, title)
        counts["unreadable scenes"] = len(failures)
    return dict(counts)


def _within_reach(parameters: IngestFlowParameters, plan: IngestPlan) -> RunnerParameters:
    """The runner that is asked for, unless just this process can read the scenes."""
    if plan.has_secrets and parameters.runner != "threads":
        print(
            f"  The source gives the scenes of {plan.sensor_id} with signatures in their "
            "addresses, which stay in this process: they are read here, in threads.",
            file=sys.stderr,
        )
        return RunnerParameters()
    return parameters


def _check_seen(plan_folder: Path, planner: str) -> None:
    here = socket.gethostname()
    if planner and here != planner and not plan_folder.exists():
        raise CatalogueError(
            f"{here} does not see {plan_folder}, where {planner} has saved its plan: all machines "
            "of the cluster need this folder under the same path. Of a catalogue in a bucket it "
            "follows XDG_CACHE_HOME."
        )
