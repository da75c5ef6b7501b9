"""Proposing to train anew, once tiles have drifted from those that the model was trained on."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from data_catalog.catalogue import Catalogue
from data_catalog.drift import assess_drift
from data_catalog.models import load_model
from flows.approval import measure_row
from flows.tables import markdown_table
from rshash.drift import DriftLimits
from rshash.quality import Measure, failures


@task(cache_policy=NO_CACHE)
def look_for_drift(catalog: str, model_id: str, limits: DriftLimits) -> list[Measure]:
    """Measures the current tiles against those that the model was trained on."""
    catalogue = Catalogue.open(catalog)
    return assess_drift(catalogue, load_model(catalogue, model_id), limits)


def proposal(model_id: str, measures: list[Measure]) -> str | None:
    """Why training anew is proposed, which an event tells too; None where it is not."""
    failed = failures(measures)
    if not failed:
        return None
    rows = [measure_row(measure) for measure in measures]
    emit_event(
        "rshash.retraining.proposed",
        {"prefect.resource.id": f"rshash.model.{model_id}"},
        payload={"reasons": failed, "measures": rows},
    )
    return (
        f"Retraining is proposed, because the tiles have drifted from those that {model_id} was "
        f"trained on: {'; '.join(failed)}. `rshash train` learns a candidate; `rshash evaluate` "
        "compares it with the model in use; `rshash backfill` switches over."
    )


def drift_section(measures: list[Measure], proposed: str | None) -> str:
    """What a night's page says of drift, in Markdown; nothing where nothing was measured."""
    if not measures:
        return ""
    said = proposed or "Tiles are like those that the model was trained on."
    return f"\n# Drift\n\n{said}\n\n{markdown_table([measure_row(one) for one in measures])}\n"
