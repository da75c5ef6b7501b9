from datetime import UTC, datetime

import pytest
from published_world import index, make_model, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.rollback import roll_back

BEFORE = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("before", [None, BEFORE])
def test_a_collection_for_an_item_is_told_as_what_it_is_and_the_other_way_round(
    catalogue: Catalogue, before: datetime | None
) -> None:
    model = make_model()
    publish_code_tables(catalogue, model, code_rows(index(tiles(3)), random_codes(3)))
    collection_id = collection_of(model.model_id)
    [item_id] = catalogue.item_ids(collection_id)
    target, told = (
        (item_id, f"{item_id} is an item, of {collection_id}: leave `--before` out")
        if before
        else (collection_id, f"{collection_id} is a collection: add `--before`")
    )
    with pytest.raises(CatalogueError, match=told):
        roll_back(catalogue, target, before)
    with pytest.raises(CatalogueError, match=r"Nothing in .* is called 'nothing'"):
        roll_back(catalogue, "nothing", before)
