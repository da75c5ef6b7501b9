"""Publishing and loading models and their pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.geoparquet import read_geoparquet, write_geoparquet
from data_catalog.grid import footprints, parse_tile_id
from data_catalog.licences import Sources, attribution, merge_sources
from data_catalog.stac_items import labels_item, model_item
from rshash.model import Model


def publish_model(catalogue: Catalogue, model: Model) -> str:
    """Publishes a model and returns its ID; one that is published already is left as it is."""
    model_id = model.model_id
    if model_id in catalogue.item_ids(MODELS):
        return model_id
    model.save(catalogue.asset_folder(MODELS, model_id))
    sensors = (model.primary_sensor, *model.secondary_sensors)
    segments = [
        f"../../{collection_id}/{item_id}/{item_id}.json"
        for collection_id in (f"tiles-{sensor}" for sensor in sensors)
        for item_id in catalogue.item_ids(collection_id)
    ]
    item = model_item(model, _sources_of_tiles(catalogue, sensors), segments)
    catalogue.publish(MODELS, item, verify=lambda folder: _verify(folder, model_id))
    return model_id


def load_model(catalogue: Catalogue, model_id: str | None = None) -> Model:
    """Loads a published model; without an ID the one that was published last.

    Raises:
        CatalogueError: No such model is published.
        ModelError: The model's files are damaged.
    """
    item = catalogue.item(MODELS, catalogue.model_id(model_id))
    return Model.load(Path(item.get_self_href() or "").parent)


def publish_pseudo_labels(
    catalogue: Catalogue, model_id: str, tile_ids: Sequence[str], probabilities: NDArray[np.float32]
) -> str:
    """Publishes the pseudo multi-labels that a model was trained on and returns the item's ID.

    Args:
        catalogue: The catalogue.
        model_id: A published model; labels that it has already are left as they are.
        tile_ids: The tiles of the training set.
        probabilities: float32, ``(tiles, clusters)``.
    """
    collection_id, item_id = f"labels-{model_id}", f"{model_id}-labels"
    if item_id in catalogue.item_ids(collection_id):
        return item_id
    sources: Sources = catalogue.item(MODELS, model_id).properties["rshash:sources"]
    labels = pd.DataFrame({"tile_id": list(tile_ids), "probabilities": list(probabilities)})
    labels = labels.sort_values("tile_id", ignore_index=True)
    tiles = footprints([parse_tile_id(tile_id) for tile_id in labels["tile_id"]])
    frame = gpd.GeoDataFrame(labels, geometry=tiles, crs="OGC:CRS84")
    path = catalogue.asset_folder(collection_id, item_id) / "labels.parquet"
    write_geoparquet(path, frame, {"attribution": attribution(sources)})
    item = labels_item(item_id, model_id, frame, sources, path)
    catalogue.publish(collection_id, item, verify=lambda folder: _verify_labels(path, len(frame)))
    return item_id


def _sources_of_tiles(catalogue: Catalogue, sensors: Sequence[str]) -> Sources:
    published = [
        item.properties["rshash:sources"]
        for sensor in sensors
        for item in catalogue.items(f"tiles-{sensor}")
    ]
    return merge_sources({sensor: [] for sensor in sensors}, *published)


def _verify(folder: Path, model_id: str) -> None:
    found = Model.load(folder).model_id
    if found != model_id:
        raise CatalogueError(f"{folder} reads back as {found}, not as {model_id}: publish again.")


def _verify_labels(path: Path, rows: int) -> None:
    found = len(read_geoparquet(path))
    if found != rows:
        raise CatalogueError(f"{path} reads back with {found} rows, not {rows}: publish again.")
