"""The rehash flow: new codes for tiles whose newest observation changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.code_tables import (
    ProposedCodes,
    collection_of,
    publish_code_tables,
    stale_observations,
)
from data_catalog.current_view import current_view
from data_catalog.encoding_parts import (
    EncodingPlan,
    discard,
    encode_batch,
    encoded_rows,
    only_encoding,
    plan_encoding,
)
from data_catalog.models import load_model, publishable_rows
from data_catalog.quality_gate import (
    KeptBack,
    assess,
    drop_kept_back,
    keep_back,
    publish_kept_back,
)
from data_catalog.segments import collection_of as segments_of
from flows.approval import measure_row, require_approval
from flows.artifacts import show_table, show_text
from flows.assets import announce
from flows.bands import tell_of_passed_over
from flows.checks import check_rehash
from flows.parameters import RehashFlowParameters
from flows.progress import Progress
from flows.run_pages import show_changes, tell_of_failure
from flows.runner_parameters import RunnerParameters
from flows.runners import task_runner
from flows.stages import Stages
from flows.tables import markdown_table
from rshash.errors import QualityError
from rshash.quality import Measure, Thresholds, failures

WORKERS = 2
"""Batches that are encoded at once: one is read while the other has the processors."""


@task(cache_policy=NO_CACHE)
def find_stale(catalog: str, model_id: str) -> Path:
    """Finds the tiles whose codes are not of their current observations; saves them in batches."""
    catalogue = Catalogue.open(catalog)
    model = load_model(catalogue, model_id)
    about = model.primary_sensor, model.tile_size, model.extractor.bands
    tell_of_passed_over(catalogue, *about)
    observations = stale_observations(catalogue, model.model_id, current_view(catalogue, *about))
    return plan_encoding(catalogue, model.model_id, observations).path


@task(task_run_name="encode batch {number}", cache_policy=NO_CACHE)
def encode(plan_path: Path, number: int) -> int:
    """Encodes a batch of tiles into a file; returns their number."""
    return encode_batch(plan_path, number)


@task(cache_policy=NO_CACHE)
def publish(
    plan_path: Path, thresholds: Thresholds
) -> tuple[list[dict[str, Any]], list[Measure], KeptBack | None]:
    """Measures all codes with those that were made, and publishes the zones that these are in.

    Codes that fail are kept back.

    Returns:
        What was published, what was measured, and what was kept back.
    """
    plan = EncodingPlan.load(plan_path)
    catalogue = Catalogue.open(plan.catalog)
    model = load_model(catalogue, plan.model_id)
    rows = publishable_rows(catalogue, model, encoded_rows(plan))
    measures: list[Measure] = []

    def check(proposed: ProposedCodes) -> None:
        view = current_view(catalogue, model.primary_sensor, model.tile_size, model.extractor.bands)
        measures.extend(assess(catalogue, model, proposed, view, thresholds))
        if failed := failures(measures):
            raise QualityError("; ".join(failed))

    try:
        published = publish_code_tables(catalogue, model, rows, check)
    except QualityError:
        return [], measures, keep_back(catalogue, model.model_id, rows, measures)
    drop_kept_back(catalogue, model.model_id)
    discard(plan)
    return published, measures, None


@task(cache_policy=NO_CACHE)
def publish_approved(
    catalog: str, model_id: str, fingerprint: str | None = None
) -> list[dict[str, Any]]:
    """Publishes the codes that the quality gate kept back; just those that somebody saw."""
    catalogue = Catalogue.open(catalog)
    return publish_kept_back(catalogue, load_model(catalogue, model_id), fingerprint)


@contextmanager
def one_encoding(catalog: str, model_id: str) -> Iterator[None]:
    """Waits until no other run of this machine makes codes by a model, as they share their work."""
    with ExitStack() as held:
        try:
            held.enter_context(only_encoding(Catalogue.open(catalog), model_id, wait=False))
        except BlockingIOError:
            print(f"  Waiting for another run that makes codes by {model_id} …", file=sys.stderr)
            held.enter_context(only_encoding(Catalogue.open(catalog), model_id))
        yield


@flow(name="rehash", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def rehash(parameters: RehashFlowParameters) -> list[dict[str, Any]]:
    """Makes and publishes codes for new and changed tiles.

    Returns:
        One row per zone that got a new code table: its item, version, and how many tiles changed.

    Raises:
        CatalogueError: There is no catalogue, no model of that ID, or nothing to approve.
        QualityError: The codes failed the quality gate, and nobody approved them; nothing was
            published.
    """
    check_rehash(parameters)
    stages = Stages()
    # Once for all: another model may be switched to meanwhile.
    model_id = Catalogue.open(parameters.catalog).model_id(parameters.model)
    if parameters.approve:
        report = publish_approved(parameters.catalog, model_id)
    else:
        with one_encoding(parameters.catalog, model_id):
            with stages.stage("find tiles that changed"):
                plan_path = find_stale(parameters.catalog, model_id)
            with stages.stage("encode"):
                encode_all(parameters, EncodingPlan.load(plan_path))
            with stages.stage("measure and publish"):
                report, measures, kept = publish(plan_path, parameters.thresholds)
        if measures:
            _show_quality(measures)
        if kept is not None:
            of_model = f" --model {model_id}" if parameters.model else ""
            how = (
                f"Nothing was published; the codes are in {kept.folder}, on this machine. Publish "
                f"them with `rshash rehash"
                f"{of_model} --approve` if they are right, or train a model on more or more varied "
                "tiles."
            )
            require_approval(parameters, measures, "Publish them all the same?", how)
            report = publish_approved(parameters.catalog, model_id, kept.fingerprint)
    _show_report(parameters.catalog, model_id, report, stages)
    return report


def _show_quality(measures: list[Measure]) -> None:
    failed = failures(measures)
    verdict = f"failed: {'; '.join(failed)}" if failed else f"all {len(measures)} measures pass"
    rows = [measure_row(measure) for measure in measures]
    show_table("quality", rows, "Quality of the codes", f"Quality gate: {verdict}.")


def _show_report(catalog: str, model_id: str, report: list[dict[str, Any]], stages: Stages) -> None:
    catalogue = Catalogue.open(catalog)
    sensor = catalogue.item(MODELS, model_id).properties["rshash:sensor"]
    made_from = [MODELS, segments_of(sensor)]
    announce(catalogue, collection_of(model_id), [row["item"] for row in report], made_from)
    show_changes(catalogue, model_id, report)
    tables = markdown_table(report) if report else "No tile changed: nothing was published."
    show_text(
        "code-tables",
        f"# Code tables published\n\n{tables}\n\n## Durations\n\n{markdown_table(stages.rows())}\n",
        f"Code tables published: {len(report)}, in {stages.total()}.",
    )


def encode_all(runner: RunnerParameters, plan: EncodingPlan, title: str = "encode") -> None:
    """Encodes the batches of a plan that are not encoded yet."""
    remaining = plan.remaining
    if not remaining:
        return
    with Progress(title, sum(plan.tiles)) as progress, task_runner(runner, WORKERS) as tasks:
        progress.advance(sum(plan.tiles) - sum(plan.tiles[number] for number in remaining))
        futures = [tasks.submit(encode, plan_path=plan.path, number=n) for n in remaining]
        for future in as_completed(futures):
            progress.advance(future.result())
