"""The backfill flow: all tiles re-hashed by another model, and switched over as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from data_catalog.backfill import assess_published, assess_sample, plan_zones
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import publish_code_tables
from data_catalog.encoding_parts import EncodingPlan, discard, encoded_rows
from data_catalog.model_switch import switch_model
from data_catalog.models import load_model, publishable_rows
from flows.approval import measure_row, require_approval
from flows.artifacts import show_table
from flows.bands import tell_of_passed_over
from flows.checks import check_backfill
from flows.quality_parameters import BackfillParameters
from flows.rehash import encode_all, one_encoding
from flows.run_pages import tell_of_failure
from rshash.quality import Measure, Thresholds


@task(cache_policy=NO_CACHE)
def measure_sample(catalog: str, model_id: str, thresholds: Thresholds) -> list[Measure]:
    """Measures codes of a sample of the tiles, before hours go into all of them."""
    catalogue = Catalogue.open(catalog)
    model = load_model(catalogue, model_id)
    tell_of_passed_over(catalogue, model.primary_sensor, model.tile_size, model.bands)
    return assess_sample(catalogue, model, thresholds)


@task(cache_policy=NO_CACHE)
def find_stale_zones(catalog: str, model_id: str) -> dict[str, Path]:
    """Finds the zones in which the model's codes are not up to date, and plans their encoding."""
    catalogue = Catalogue.open(catalog)
    plans = plan_zones(catalogue, load_model(catalogue, model_id))
    return {zone: plan.path for zone, plan in plans.items()}


@task(task_run_name="publish {zone}", cache_policy=NO_CACHE)
def publish_zone(plan_path: Path, zone: str) -> list[dict[str, Any]]:
    """Publishes a zone's codes in the model's own collection, which nobody is served from yet."""
    plan = EncodingPlan.load(plan_path)
    catalogue = Catalogue.open(plan.catalog)
    model = load_model(catalogue, plan.model_id)
    rows = publishable_rows(catalogue, model, encoded_rows(plan))
    published = publish_code_tables(catalogue, model, rows)
    discard(plan)
    return published


@task(cache_policy=NO_CACHE)
def measure_all(catalog: str, model_id: str, thresholds: Thresholds) -> list[Measure]:
    """Measures all published codes of a model."""
    catalogue = Catalogue.open(catalog)
    return assess_published(catalogue, load_model(catalogue, model_id), thresholds)


@task(cache_policy=NO_CACHE)
def switch_over(catalog: str, model_id: str) -> dict[str, str | None]:
    """Makes a model the one in use, and tells of it by an event."""
    done = switch_model(Catalogue.open(catalog), model_id)
    emit_event(
        "rshash.model.switched", {"prefect.resource.id": f"rshash.model.{model_id}"}, payload=done
    )
    return done


@flow(name="backfill", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def backfill(parameters: BackfillParameters) -> dict[str, Any]:
    """Re-hashes all tiles by another model, zone by zone, and switches over to it as one.

    Until then everybody is served by the model in use, whose nights go on. Started again, it goes
    on with the zones that are not up to date.

    Returns:
        ``published``: a row per zone that got a new code table; ``in_use``: the model, and the one
        that it is in place of, which is None where it was in use already.

    Raises:
        CatalogueError: There is no such model, or it has no codes in a zone in which the model in
            use has some.
        QualityError: The codes failed the quality gate, and nobody approved them; the model in use
            stays the same.
    """
    check_backfill(parameters)
    catalog, thresholds = parameters.catalog, parameters.thresholds
    catalogue = Catalogue.open(catalog)
    model_id = catalogue.model_id(parameters.model or catalogue.latest_model_id())
    if model_id == catalogue.model_in_use():
        return {"published": [], "in_use": {"model": model_id, "in_place_of": None}}
    _pass(
        parameters,
        measure_sample(catalog, model_id, thresholds),
        "This is a sample. Make the codes of all tiles all the same?",
        f"Nothing was published. {_advice(model_id)}",
    )
    published = _hash_zones(parameters, model_id)
    _pass(
        parameters,
        measure_all(catalog, model_id, thresholds),
        f"Switch over to {model_id} all the same?",
        f"The codes are published, but not in use. {_advice(model_id)} To switch over all the "
        f"same: `rshash catalog use {model_id}`.",
    )
    # What changed meanwhile.
    published += _hash_zones(parameters, model_id)
    show_table("backfill", published, f"Code tables of {model_id}")
    return {"published": published, "in_use": switch_over(catalog, model_id)}


def _hash_zones(parameters: BackfillParameters, model_id: str) -> list[dict[str, Any]]:
    published = []
    with one_encoding(parameters.catalog, model_id):
        for zone, path in find_stale_zones(parameters.catalog, model_id).items():
            encode_all(parameters, EncodingPlan.load(path), f"encode {zone}")
            published += publish_zone(path, zone)
    return published


def _pass(parameters: BackfillParameters, measures: list[Measure], question: str, how: str) -> None:
    rows = [measure_row(measure) for measure in measures]
    show_table("quality", rows, "Quality of the codes")
    require_approval(parameters, measures, question, how)


def _advice(model_id: str) -> str:
    return (
        f"`rshash evaluate --model {model_id}` shows more of them; lower thresholds (see `rshash "
        "backfill --help`) let them pass; else train on more or more varied tiles."
    )
