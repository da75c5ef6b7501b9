"""Two models side by side, on the tiles that both can make codes of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.errors import QueryError
from data_catalog.feature_cache import observation_features
from data_catalog.models import load_model
from data_catalog.observations import current_observations
from data_catalog.probe_tiles import probe_rows
from rshash.comparison import NEIGHBOURS, ComparedModel, Comparison, compare
from rshash.errors import LabelError
from rshash.evaluation import Labels
from rshash.features import Features
from rshash.labels import TileLabels
from rshash.model import Model
from rshash.report import CodedTiles

COMPARED_TILES = 2000


def compared_with(catalogue: Catalogue, model_id: str, against: str | None) -> str | None:
    """The model that another one is compared with.

    Args:
        catalogue: Holds the models.
        model_id: The one that is evaluated.
        against: The one asked for; without it the model in use, unless that is evaluated itself.

    Returns:
        None where it is compared with none.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The two are one, or make codes of tiles of different sizes.
    """
    other = catalogue.model_id(against)
    if other == model_id:
        if against is None:
            return None
        raise QueryError(f"Model {model_id} cannot be compared with itself: name another one.")
    sizes = [
        catalogue.item(MODELS, one).properties["rshash:tile_size"] for one in (model_id, other)
    ]
    if sizes[0] != sizes[1]:
        raise QueryError(
            f"{model_id} makes codes of tiles of {sizes[0]} m, {other} of tiles of {sizes[1]} m: "
            "only models of the same tiles can be compared."
        )
    return other


def compare_models(
    catalogue: Catalogue, model_id: str, against: str, labels: TileLabels | None = None
) -> Comparison:
    """Compares two models on the current observations of the same tiles.

    Their networks make the codes anew: those published may be learned, or not there yet.

    Args:
        catalogue: Holds the models and the tiles.
        model_id: The model that may take the other's place.
        against: The other.
        labels: With them the labelled tiles alone are compared, by the labels they share.

    Raises:
        CatalogueError: No such model is published.
        LabelError: None of the tiles that both can make codes of has a label.
        QueryError: There are too few such tiles.
    """
    models = [load_model(catalogue, one) for one in (model_id, against)]
    observed = [
        current_observations(catalogue, model.primary_sensor, model.tile_size, model.bands)
        for model in models
    ]
    shared = observed[0]["tile_id"][observed[0]["tile_id"].isin(observed[1]["tile_id"])]
    if labels is not None:
        labelled = shared[shared.isin(labels.tile_ids)]
        if labelled.empty:
            raise LabelError(
                f"None of the {len(labels)} labelled tiles is among the {len(shared)} that both "
                f"{model_id} and {against} can make codes of."
            )
        shared = labelled
    tile_ids = shared.iloc[probe_rows(shared, COMPARED_TILES)].tolist()
    features = [
        _features(catalogue, model, tiles, tile_ids)
        for model, tiles in zip(models, observed, strict=True)
    ]
    complete = ~np.isnan(np.concatenate(features, axis=1)).any(axis=1)
    if complete.sum() <= NEIGHBOURS:
        raise QueryError(
            f"{model_id} and {against} are compared on tiles that both can make codes of, at least "
            f"{NEIGHBOURS + 1}, but there are {int(complete.sum())}."
        )
    values = None
    if labels is not None:
        values = labels.values[pd.Index(labels.tile_ids).get_indexer(pd.Index(tile_ids))][complete]
    candidate, other = (
        _side(model, own[complete], values) for model, own in zip(models, features, strict=True)
    )
    found = compare(candidate, other)
    note = f"{int(complete.sum()):,} of {len(shared):,} tiles take part, chosen by their IDs."
    return replace(found, report=replace(found.report, notes=(note, *found.report.notes)))


def _side(model: Model, features: Features, labels: Labels | None) -> ComparedModel:
    tiles = CodedTiles(model.encode_features(features), labels, features)
    return ComparedModel(model.model_id, model.bits, model.extractor.id, tiles)


def _features(
    catalogue: Catalogue, model: Model, observed: pd.DataFrame, tile_ids: list[str]
) -> Features:
    tiles = observed.set_index("tile_id", drop=False).loc[tile_ids].reset_index(drop=True)
    return observation_features(catalogue, model.primary_sensor, tiles, model.extractor)
