"""The nightly flow: everything from new imagery to published codes."""

from __future__ import annotations

from typing import Any

from prefect import flow

from data_catalog.catalogue import Catalogue
from data_catalog.leases import leased
from flows.artifacts import show_text
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
from flows.tables import markdown_table
from flows.train import train


@flow(name="nightly")
def nightly(parameters: NightlyParameters) -> dict[str, Any]:
    """Ingests what is new since the last run, re-hashes the tiles that changed, publishes, reports.

    A catalogue without a model gets one first. Run twice, the second run finds nothing to do.

    Returns:
        ``ingested`` and ``published``, as `ingest` and `rehash` give them, and ``retraining``: why
        training anew is proposed, None where it is not or where nothing was published.
    """
    check_nightly(parameters)
    with one_night(parameters.catalog), leased(parameters.catalog):
        ingested = ingest(parameters.narrowed_to(IngestFlowParameters))
        if parameters.model is None and not Catalogue.open(parameters.catalog).latest_model_id():
            train(parameters.narrowed_to(TrainParameters))
        published = rehash(parameters.narrowed_to(RehashFlowParameters))
        model_id = Catalogue.open(parameters.catalog).model_id(parameters.model)
        limits = parameters.drift_limits
        drift = look_for_drift(parameters.catalog, model_id, limits) if published else []
        retraining = proposal(model_id, drift)
        show_text("nightly", _report(ingested, published) + drift_section(drift, retraining))
    return {"ingested": ingested, "published": published, "retraining": retraining}


def _report(ingested: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    codes = markdown_table(published) if published else "No tile changed: nothing was published."
    return f"# Ingested\n\n{markdown_table(ingested)}\n\n# Code tables published\n\n{codes}\n"
