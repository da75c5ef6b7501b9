"""The nightly flow: everything from new imagery to published codes."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from data_catalog.catalogue import Catalogue
from flows.checks import check_nightly
from flows.ingest import ingest
from flows.parameters import (
    IngestFlowParameters,
    NightlyParameters,
    RehashParameters,
    TrainParameters,
)
from flows.rehash import rehash
from flows.train import train


@flow(name="nightly")
def nightly(parameters: NightlyParameters) -> dict[str, Any]:
    """Ingests what is new since the last run, re-hashes the tiles that changed, publishes, reports.

    A catalogue without a model gets one first. Run twice, the second run finds nothing to do.
    """
    check_nightly(parameters)
    ingested = ingest(parameters.narrowed_to(IngestFlowParameters))
    if parameters.model is None and Catalogue.open(parameters.catalog).latest_model_id() is None:
        train(parameters.narrowed_to(TrainParameters))
    published = rehash(parameters.narrowed_to(RehashParameters))
    create_markdown_artifact(_summary(ingested, published), description="Nightly report")
    return {"ingested": ingested, "published": published}


def _summary(ingested: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    lines = ["# Nightly report", ""]
    for row in ingested:
        lines.append("- " + ", ".join(f"{key}: {value}" for key, value in row.items()))
    lines += [f"- code table {row['item']}: {row}" for row in published]
    if not published:
        lines.append("- no tile changed: nothing was published")
    return "\n".join(lines)
