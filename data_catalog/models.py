"""Publishing and loading models, their pseudo-labels and their learned codes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pystac
from numpy.typing import NDArray

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.cluster_pictures import cluster_picture
from data_catalog.code_tables import (
    LEARNED,
    check_code_table,
    code_rows,
    with_learned_codes,
    write_code_table,
)
from data_catalog.errors import CatalogueError
from data_catalog.geoparquet import read_geoparquet, write_geoparquet
from data_catalog.grid import footprints, parse_tile_id
from data_catalog.licences import Sources, attribution, merge_sources
from data_catalog.segments import collection_of as segments_of
from data_catalog.stac_items import labels_item
from data_catalog.stac_model_items import model_item
from rshash.model import Model
from rshash.mrhash import MrHashTraining

if TYPE_CHECKING:
    from rshash.ahcl import AhclTraining

Segments = Mapping[str, Collection[str]]
"""IDs of segments by sensor ID."""

LEARNED_FILE = "learned-codes.parquet"


def publish_training(
    catalogue: Catalogue,
    model: Model,
    training: MrHashTraining | AhclTraining,
    observations: pd.DataFrame,
    segments: Segments | None = None,
) -> str:
    """Publishes a model with all that its training gave, and returns its ID.

    Pseudo-labels come first and the model last: whoever sees a model finds its labels, and a run
    that was cut off in between publishes what is missing when it is repeated.

    Args:
        catalogue: The catalogue.
        model: The model of the training.
        training: Gives pseudo-labels or learned codes, a row per observation.
        observations: What it was trained on, in its order: ``tile_id``, ``datetime``,
            ``source_scenes`` and ``clear_fraction``.
        segments: As ``publish_model`` takes them.
    """
    if isinstance(training, MrHashTraining):
        tile_ids = observations["tile_id"].tolist()
        publish_pseudo_labels(catalogue, model, tile_ids, training.probabilities, segments)
        return publish_model(catalogue, model, None, segments)
    learned = code_rows(observations, training.codes, LEARNED)
    return publish_model(catalogue, model, learned, segments)


def publish_model(
    catalogue: Catalogue,
    model: Model,
    learned: pd.DataFrame | None = None,
    segments: Segments | None = None,
) -> str:
    """Publishes a model and returns its ID; one that is published already is left as it is.

    Args:
        catalogue: The catalogue.
        model: The model.
        learned: Codes that were learned with it, as ``code_rows`` makes them, of the observations
            that they were learned from.
        segments: Those that hold what it was trained on; without them all of its sensors'.
    """
    model_id = model.model_id
    if model_id in catalogue.item_ids(MODELS):
        return model_id
    folder = catalogue.asset_folder(MODELS, model_id)
    model.save(folder)
    path, table = None, None
    if learned is not None:
        path, rows = folder / LEARNED_FILE, learned.assign(model_id=model_id)
        table = write_code_table(path, rows, model.bits, model.primary_sensor)
    trained_on = _trained_on(catalogue, model, segments)
    hrefs = [f"../../{one.collection_id}/{one.id}/{one.id}.json" for one in trained_on]
    item = model_item(model, _sources(model, trained_on), hrefs, path)

    def verify(folder: Path) -> None:
        _verify(folder, model_id)
        if table is not None:
            check_code_table(folder / LEARNED_FILE, table, model.bits)

    catalogue.publish(MODELS, item, verify)
    return model_id


def learned_codes(
    catalogue: Catalogue, model_id: str, tile_ids: Iterable[str] | None = None
) -> pd.DataFrame | None:
    """The codes that were learned with a published model, as ``with_learned_codes`` takes them.

    Args:
        catalogue: The catalogue.
        model_id: The model.
        tile_ids: Only of these tiles; None for all.

    Returns:
        A row per labelled tile, with the observation that its code was learned from; None where the
        model was trained without labels.

    Raises:
        CatalogueError: No such model is published.
    """
    item = catalogue.item(MODELS, model_id)
    if "learned-codes" not in item.assets:
        return None
    path = catalogue.asset_path(item, "learned-codes")
    table = pq.read_table(path).drop_columns(["geometry", "bbox"])
    if tile_ids is not None:
        table = table.filter(pc.is_in(table["tile_id"], pa.array(tile_ids, pa.string())))
    return table.to_pandas()


def publishable_rows(catalogue: Catalogue, model: Model, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of codes that a model's network made, with the learned ones in place of theirs.

    Args:
        catalogue: Holds the model.
        model: The model.
        rows: As ``encode_observations`` makes them.
    """
    learned = learned_codes(catalogue, model.model_id, rows["tile_id"])
    return with_learned_codes(rows, learned, model.bits)


def load_model(catalogue: Catalogue, model_id: str | None = None) -> Model:
    """Loads a published model; without an ID the one in use.

    Raises:
        CatalogueError: No such model is published.
        ModelError: The model's files are damaged.
    """
    item = catalogue.item(MODELS, catalogue.model_id(model_id))
    [folder] = {catalogue.asset_path(item, key).parent for key in ("weights", "description")}
    return Model.load(folder)


def publish_pseudo_labels(
    catalogue: Catalogue,
    model: Model,
    tile_ids: Sequence[str],
    probabilities: NDArray[np.float32],
    segments: Segments | None = None,
) -> str:
    """Publishes the pseudo multi-labels that a model was trained on, with a picture of them.

    Args:
        catalogue: The catalogue.
        model: The model; labels that it has already are left as they are.
        tile_ids: The tiles of the training set.
        probabilities: float32, ``(tiles, clusters)``.
        segments: As ``publish_model`` takes them.

    Returns:
        The item's ID. Its asset ``overview`` is the picture.
    """
    model_id = model.model_id
    collection_id, item_id = f"labels-{model_id}", f"{model_id}-labels"
    if item_id in catalogue.item_ids(collection_id):
        return item_id
    sources = _sources(model, _trained_on(catalogue, model, segments))
    labels = pd.DataFrame({"tile_id": list(tile_ids), "probabilities": list(probabilities)})
    labels = labels.sort_values("tile_id", ignore_index=True)
    tiles = footprints([parse_tile_id(tile_id) for tile_id in labels["tile_id"]])
    frame = gpd.GeoDataFrame(labels, geometry=tiles, crs="OGC:CRS84")
    folder = catalogue.asset_folder(collection_id, item_id)
    path, picture = folder / "labels.parquet", folder / "clusters.png"
    write_geoparquet(path, frame, {"attribution": attribution(sources)})
    drawn = cluster_picture(catalogue, model.primary_sensor, tile_ids, probabilities)
    drawn.save(picture, "PNG", optimize=True)
    item = labels_item(item_id, model_id, frame, sources, path, picture)
    catalogue.publish(collection_id, item, verify=lambda folder: _verify_labels(path, len(frame)))
    return item_id


def _sensors(model: Model) -> tuple[str, ...]:
    return model.primary_sensor, *model.secondary_sensors


def _trained_on(catalogue: Catalogue, model: Model, segments: Segments | None) -> list[pystac.Item]:
    return [
        item
        for sensor in _sensors(model)
        for item in catalogue.items(segments_of(sensor))
        if segments is None or item.id in segments[sensor]
    ]


def _sources(model: Model, trained_on: Iterable[pystac.Item]) -> Sources:
    published = [item.properties["rshash:sources"] for item in trained_on]
    return merge_sources({sensor: [] for sensor in _sensors(model)}, *published)


def _verify(folder: Path, model_id: str) -> None:
    found = Model.load(folder).model_id
    if found != model_id:
        raise CatalogueError(f"{folder} reads back as {found}, not as {model_id}: publish again.")


def _verify_labels(path: Path, rows: int) -> None:
    found = len(read_geoparquet(path))
    if found != rows:
        raise CatalogueError(f"{path} reads back with {found} rows, not {rows}: publish again.")
