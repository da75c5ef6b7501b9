"""Going back to older versions of code tables."""

from __future__ import annotations

from datetime import UTC, datetime

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.verification import item_faults
from data_catalog.versions import older_versions


def roll_back(
    catalogue: Catalogue, target: str, before: datetime | None = None
) -> list[dict[str, str]]:
    """Makes older versions current again, if they are still as they were published.

    The next re-hash makes codes anew of the tiles whose current observation they do not show.

    Args:
        catalogue: The catalogue.
        target: ID of a version, or, with ``before``, of a collection.
        before: Take the newest versions that were published before this moment; without an offset,
            it is in UTC.

    Returns:
        A row per version that is current again: item, in place of.

    Raises:
        CatalogueError: There is no such version, it is current already, or it is damaged; then
            nothing has changed.
    """
    is_collection = target in catalogue.collections()
    if before is None:
        if is_collection:
            raise CatalogueError(
                f"{target} is a collection: add `--before` with the moment that it is to go back "
                "to, or name the one version that is to be current."
            )
        collection_id, chosen = catalogue.find(target), [target]
    else:
        if not is_collection:
            collection_id = catalogue.find(target)
            raise CatalogueError(
                f"{target} is an item, of {collection_id}: leave `--before` out to make it "
                "current, or name the collection."
            )
        collection_id = target
        moment = before if before.tzinfo else before.replace(tzinfo=UTC)
        chosen = older_versions(catalogue, target, stac.timestamp(moment))
    for item_id in chosen:
        for fault in item_faults(catalogue, collection_id, item_id):
            raise CatalogueError(
                f"{item_id} cannot be current again: {fault.file} {fault.problem}."
            )
    return [
        {"item": item_id, "in_place_of": catalogue.roll_back(collection_id, item_id)}
        for item_id in chosen
    ]
