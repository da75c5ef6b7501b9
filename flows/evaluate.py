"""The evaluate flow: a report on published codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.evaluation import evaluate_codes
from flows.artifacts import inline_address, show_text
from flows.checks import check_evaluate
from flows.labels import read_land_cover
from flows.learning import labels_for
from flows.parameters import EvaluateParameters
from rshash.report import EvaluationReport


@task(cache_policy=NO_CACHE)
def measure(parameters: EvaluateParameters, model_id: str, folder: Path) -> EvaluationReport:
    """Evaluates a model's codes and writes the report into a folder."""
    catalogue = Catalogue.open(parameters.catalog)
    model = catalogue.item(MODELS, model_id).properties
    labels = labels_for(catalogue, parameters, model["rshash:sensor"], model["rshash:tile_size"])
    report = evaluate_codes(catalogue, model_id, labels)
    files = report.save(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in (file for file in files if file.suffix == ".png"):
        text = text.replace(f"]({picture.name})", f"]({inline_address(picture)})")
    show_text("evaluation", f"{text}\nIn full: `{folder.resolve()}`.\n")
    return report


@flow(name="evaluate")
def evaluate(parameters: EvaluateParameters) -> dict[str, Any]:
    """Evaluates published codes beside baselines on the same features, and writes a report.

    Labelled tiles are the queries and the database, each left out of the ranking for itself.
    Without labels there remain the measures that need none.

    Returns:
        ``folder`` with the report, and ``figures``: a row per method and baseline.

    Raises:
        CatalogueError: There is no catalogue, or no such model in it.
        LabelError: There are no such labels, or none of a coded tile.
        QueryError: The model has no current codes.
    """
    check_evaluate(parameters)
    catalogue = Catalogue.open(parameters.catalog)
    model_id = catalogue.model_id(parameters.model)
    model = catalogue.item(MODELS, model_id).properties
    if parameters.land_cover:
        read_land_cover(
            parameters.catalog,
            parameters.source,
            parameters.land_cover,
            model["rshash:sensor"],
            model["rshash:tile_size"],
        )
    folder = parameters.output or Path(f"evaluation-{model_id}")
    report = measure(parameters, model_id, folder)
    return {"folder": folder, "figures": figures(report)}


def figures(report: EvaluationReport) -> list[dict[str, Any]]:
    """The main figures of a report, a row per method and baseline."""
    rows = []
    for entry in report.entries:
        row: dict[str, Any] = {
            "codes or features": entry.name,
            "bytes a tile": entry.bytes_per_tile,
        }
        if entry.quality is not None:
            row["mean AP"] = round(entry.quality.mean_ap, 3)
            row |= {f"at {cut}": round(ap, 3) for cut, ap in entry.quality.mean_ap_at.items()}
        if entry.agreement is not None:
            row["agreement"] = round(entry.agreement, 3)
        rows.append(row)
    return rows
