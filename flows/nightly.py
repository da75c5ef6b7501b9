"""The nightly flow: everything from new imagery to published codes."""

from __future__ import annotations

from typing import Any

from prefect import flow

from data_catalog.catalogue import Catalogue
from data_catalog.leases import leased
from flows.artifacts import one_page, show_text
from flows.checks import check_nightly
from flows.drift import drift_section, look_for_drift, proposal
from flows.ingest import ingest
from flows.one_night import one_night
from flows.parameters import (
    IngestFlowParameters,
    NightlyParameters,
    RehashFlowParameters,
    TrainParameters,
)
from flows.rehash import rehash
from flows.run_pages import tell_of_failure
from flows.stages import Stages
from flows.tables import markdown_table
from flows.train import train


@flow(name="nightly", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def nightly(parameters: NightlyParameters) -> dict[str, Any]:
    """Ingests what is new since the last run, re-hashes the tiles that changed, publishes, reports.

    A catalogue without a model gets one first. Run twice, the second run finds nothing to do.

    Returns:
        ``ingested`` and ``published``, as `ingest` and `rehash` give them, and ``retraining``: why
        training anew is proposed, None where it is not or where nothing was published.
    """
    check_nightly(parameters)
    stages = Stages()
    with one_night(parameters.catalog), leased(parameters.catalog) as lease, one_page():
        with stages.stage("ingest"):
            ingested = ingest(parameters.narrowed_to(IngestFlowParameters))
        lease.check()
        if _has_no_model(parameters):
            with stages.stage("train"):
                train(parameters.narrowed_to(TrainParameters))
            lease.check()
        with stages.stage("re-hash"):
            published = rehash(parameters.narrowed_to(RehashFlowParameters))
        model_id = Catalogue.open(parameters.catalog).model_id(parameters.model)
        limits = parameters.drift_limits
        with stages.stage("look for drift"):
            drift = look_for_drift(parameters.catalog, model_id, limits) if published else []
        retraining = proposal(model_id, drift)
        report = _report(ingested, published, stages) + drift_section(drift, retraining)
        show_text("nightly", report, _summary(ingested, published))
    return {"ingested": ingested, "published": published, "retraining": retraining}


def _has_no_model(parameters: NightlyParameters) -> bool:
    return parameters.model is None and Catalogue.open(parameters.catalog).latest_model_id() is None


def _summary(ingested: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    valid, invalid = (sum(row.get(state, 0) for row in ingested) for state in ("valid", "invalid"))
    appeared, changed = (sum(row[key] for row in published) for key in ("appeared", "changed"))
    codes = f"{appeared:,} tiles got their first code, {changed:,} a new one"
    return (
        f"{valid:,} tiles read, {invalid:,} invalid; {codes if published else 'no code changed'}."
    )


def _report(ingested: list[dict[str, Any]], published: list[dict[str, Any]], stages: Stages) -> str:
    codes = markdown_table(published) if published else "No tile changed: nothing was published."
    return "\n\n".join(
        [
            f"# Durations\n\n{markdown_table(stages.rows())}",
            f"# Ingested\n\n{markdown_table(ingested)}",
            f"# Code tables published\n\n{codes}\n",
        ]
    )
