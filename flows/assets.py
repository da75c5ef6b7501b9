"""What is published becomes an asset of Prefect: an event of its materialisation, with its origin.

The open-source server shows these events in its feed, and automations can wait for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prefect.assets import Asset, AssetProperties, add_asset_metadata
from prefect.cache_policies import NO_CACHE
from prefect.tasks import MaterializingTask

from data_catalog.catalogue import Catalogue

_REFUSED = re.compile(r"[\s#?&%\"'<>\[\]{}|\\^`]")


def announce(
    catalogue: Catalogue, collection: str, items: Sequence[str], made_from: Sequence[str] = ()
) -> None:
    """Tells Prefect of items that were published.

    Args:
        catalogue: Where they are.
        collection: The collection that holds them: the asset.
        items: Their IDs; nothing is told of none.
        made_from: Collections that they were made from.
    """
    if not items:
        return
    asset = Asset(
        key=asset_key(catalogue, collection),
        properties=AssetProperties(name=collection, description=f"In {catalogue.store}."),
    )

    def tell(published: list[str]) -> None:
        add_asset_metadata(asset, {"items": published})

    told = MaterializingTask[[list[str]], None](
        fn=tell,
        assets=[asset],
        asset_deps=[asset_key(catalogue, source) for source in made_from],
        materialized_by="rshash",
        name=f"tell of {collection}",
        cache_policy=NO_CACHE,
    )
    told(list(items))


def asset_key(catalogue: Catalogue, collection: str) -> str:
    """The asset that stands for a collection: its address, without what Prefect refuses."""
    return _REFUSED.sub("_", f"{catalogue.store.uri}/{collection}")
