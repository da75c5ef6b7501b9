"""The rehash flow: new codes for tiles whose newest observation changed."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import publish_code_tables, stale_observations, with_learned_codes
from data_catalog.encoding import encode_observations
from data_catalog.models import learned_codes, load_model
from data_catalog.observations import current_observations
from flows.artifacts import show_table
from flows.bands import tell_of_passed_over
from flows.checks import check_rehash
from flows.parameters import RehashParameters
from flows.progress import Progress
from rshash.quality import check_distinct


@task(cache_policy=NO_CACHE)
def encode(catalog: str, model_id: str | None, minimum_distinct: int) -> list[dict[str, Any]]:
    """Encodes the tiles that changed, checks the codes, and publishes the zones they are in."""
    catalogue = Catalogue.open(catalog)
    model = load_model(catalogue, model_id)
    observations = stale_observations(
        catalogue,
        model.model_id,
        current_observations(
            catalogue, model.primary_sensor, model.tile_size, model.extractor.bands
        ),
    )
    tell_of_passed_over(catalogue, model.primary_sensor, model.tile_size, model.extractor.bands)
    with Progress(f"encode {model.primary_sensor}", len(observations)) as progress:
        rows = encode_observations(catalogue, model, observations, progress.advance)
    # Codes that are learned from labels are as many as there are classes to tell apart.
    minimum = min(minimum_distinct, len(model.training.get("classes", ())) or minimum_distinct)
    return publish_code_tables(
        catalogue,
        model,
        with_learned_codes(rows, learned_codes(catalogue, model.model_id), model.bits),
        check=lambda codes: check_distinct(codes, model.bits, minimum),
    )


@flow(name="rehash")
def rehash(parameters: RehashParameters) -> list[dict[str, Any]]:
    """Makes and publishes codes for new and changed tiles.

    Returns:
        One row per zone that got a new code table: its item, version, and how many tiles changed.

    Raises:
        CatalogueError: There is no catalogue, or no model of that ID.
        CodeError: The codes failed the quality gate; nothing was published.
    """
    check_rehash(parameters)
    report = encode(parameters.catalog, parameters.model, parameters.minimum_distinct)
    show_table("code-tables", report, "Code tables published")
    return report
