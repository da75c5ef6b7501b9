"""The evaluate flow: a report on published codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.comparison import compare_models, compared_with
from data_catalog.evaluation import evaluate_codes
from flows.artifacts import inline_address, show_text
from flows.checks import check_evaluate
from flows.labels import read_land_cover
from flows.learning import labels_for
from flows.parameters import EvaluateParameters
from flows.run_pages import tell_of_failure
from rshash.labels import TileLabels
from rshash.report import EvaluationReport


@task(cache_policy=NO_CACHE)
def measure(parameters: EvaluateParameters, model_id: str, folder: Path) -> list[dict[str, Any]]:
    """Evaluates a model's codes and writes the report into a folder; returns the main figures."""
    catalogue = Catalogue.open(parameters.catalog)
    labels = _labels(catalogue, parameters, model_id)
    report = evaluate_codes(catalogue, model_id, labels)
    _show("evaluation", folder, report.save(folder))
    return figures(report)


@task(cache_policy=NO_CACHE)
def measure_beside(
    parameters: EvaluateParameters, model_id: str, other: str, folder: Path
) -> tuple[list[dict[str, Any]], str]:
    """Compares a model with another one, writes the report into a folder.

    Returns:
        The figures of both, and which is better by which, with what to do next.
    """
    catalogue = Catalogue.open(parameters.catalog)
    found = compare_models(catalogue, model_id, other, _labels(catalogue, parameters, model_id))
    advice = _advice(catalogue, model_id, other)
    _show("comparison", folder, found.save(folder, advice))
    return found.rows(), f"{found.verdict}\n{advice}"


def _labels(
    catalogue: Catalogue, parameters: EvaluateParameters, model_id: str
) -> TileLabels | None:
    model = catalogue.item(MODELS, model_id).properties
    return labels_for(catalogue, parameters, model["rshash:sensor"], model["rshash:tile_size"])


def _advice(catalogue: Catalogue, model_id: str, other: str) -> str:
    in_use = catalogue.model_in_use()
    if in_use not in (model_id, other):
        return f"In use is {in_use}. `rshash backfill --model ID` switches over to another model."
    candidate = other if model_id == in_use else model_id
    return (
        f"In use is {in_use}. To switch over to {candidate}: `rshash backfill --model {candidate}`."
    )


def _show(key: str, folder: Path, files: list[Path]) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    for picture in (file for file in files if file.suffix == ".png"):
        text = text.replace(f"]({picture.name})", f"]({inline_address(picture)})")
    show_text(key, f"{text}\nIn full: `{folder.resolve()}`.\n")


@flow(name="evaluate", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def evaluate(parameters: EvaluateParameters) -> dict[str, Any]:
    """Evaluates published codes beside baselines on the same features, and writes a report.

    A model that is not in use is compared with the one in use, on tiles that both make codes of
    for it; it need not have codes yet.

    Labelled tiles are the queries and the database, each left out of the ranking for itself.
    Without labels there remain the measures that need none.

    Returns:
        ``folder`` with the report, and ``figures``: a row per method and baseline, or per measure
        of two models; ``verdict`` says which of two is better by which measure.

    Raises:
        CatalogueError: There is no catalogue, or no such model in it.
        LabelError: There are no such labels, or none of a coded tile.
        QueryError: The model has no current codes, or cannot be compared with the other one.
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
    other = compared_with(catalogue, model_id, parameters.against)
    if other is None:
        return {"folder": folder, "figures": measure(parameters, model_id, folder)}
    rows, verdict = measure_beside(parameters, model_id, other, folder)
    return {"folder": folder, "figures": rows, "verdict": verdict}


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
