"""The nightly flow: everything from new imagery to published codes."""

from __future__ import annotations

from typing import Any

from prefect import flow

from data_catalog.catalogue import Catalogue
from data_catalog.leases import leased
from flows.artifacts import show_text
from flows.checks import check_nightly
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
    """
    check_nightly(parameters)
    with one_night(parameters.catalog), leased(parameters.catalog):
        ingested = ingest(parameters.narrowed_to(IngestFlowParameters))
        if parameters.model is None and not Catalogue.open(parameters.catalog).latest_model_id():
            train(parameters.narrowed_to(TrainParameters))
        published = rehash(parameters.narrowed_to(RehashFlowParameters))
        show_text("nightly", _report(ingested, published))
    return {"ingested": ingested, "published": published}


def _report(ingested: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    codes = markdown_table(published) if published else "No tile changed: nothing was published."
    return f"# Ingested\n\n{markdown_table(ingested)}\n\n# Code tables published\n\n{codes}\n"
