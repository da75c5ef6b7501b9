"""Switching queries and nights over from one model to another."""

from __future__ import annotations

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.code_schema import collection_of
from data_catalog.errors import CatalogueError
from data_catalog.verification import item_faults


def switch_model(catalogue: Catalogue, model_id: str) -> dict[str, str | None]:
    """Makes another model the one in use, as one: readers see all of the old or all of the new one.

    Nothing is deleted: switching back is the same again.

    Args:
        catalogue: The catalogue.
        model_id: The model.

    Returns:
        ``model`` and ``in_place_of``.

    Raises:
        CatalogueError: It is not published, damaged, in use already, or lacks zones that have codes
            of the model in use; then nothing has changed.
    """
    before = catalogue.model_in_use()
    if catalogue.model_id(model_id) == before:
        raise CatalogueError(f"Model {model_id} is in use already.")
    tables = collection_of(model_id)
    published = [(MODELS, model_id), *((tables, one) for one in catalogue.item_ids(tables))]
    for collection_id, item_id in published:
        for fault in item_faults(catalogue, collection_id, item_id):
            raise CatalogueError(f"{model_id} cannot be used: {fault.file} {fault.problem}.")
    catalogue.use_model(model_id, lambda: _check_zones(catalogue, model_id))
    return {"model": model_id, "in_place_of": before}


def coded_zones(catalogue: Catalogue, model_id: str) -> list[str]:
    """The UTM zones that a model has codes in, such as ``32N``, sorted."""
    items = catalogue.items(collection_of(model_id))
    return sorted(str(item.properties["grid:code"]).rpartition("-")[2] for item in items)


def _check_zones(catalogue: Catalogue, model_id: str) -> None:
    in_use = catalogue.model_in_use()
    coded = [] if in_use is None else coded_zones(catalogue, in_use)
    lacking = sorted(set(coded) - set(coded_zones(catalogue, model_id)))
    if lacking:
        raise CatalogueError(
            f"Model {model_id} has no codes in {', '.join(lacking)}, where {in_use} has some: make "
            f"them with `rshash backfill --model {model_id}`, which switches over when all are "
            "there."
        )
