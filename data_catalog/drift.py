"""Whether a catalogue's tiles have drifted from those that a model was trained on."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import current_view
from data_catalog.feature_cache import observation_features
from data_catalog.probe_tiles import PROBE_TILES, probe_rows
from rshash.drift import DriftLimits, Reference, measure_drift, measure_reference
from rshash.features import Features
from rshash.model import Model
from rshash.quality import Measure

REFERENCE = "reference"
"""Of a model's description of its training: what later tiles are compared to."""


def with_reference(catalogue: Catalogue, model: Model, observations: pd.DataFrame) -> Model:
    """The model with a note of what its training tiles were like, which is no part of its ID.

    Args:
        catalogue: Holds the observations' segments.
        model: The model, just trained.
        observations: What it was trained on, as ``current_observations`` returns them.
    """
    chosen = probe_rows(observations["tile_id"], _with_spare(PROBE_TILES))
    probe = observations.iloc[chosen].reset_index(drop=True)
    features = _probe_features(catalogue, model, probe, PROBE_TILES)
    reference = measure_reference(model, features)
    noted = {} if reference is None else {REFERENCE: asdict(reference)}
    return replace(model, training={**model.training, **noted})


def assess_drift(catalogue: Catalogue, model: Model, limits: DriftLimits) -> list[Measure]:
    """Measures the current tiles against those that a model was trained on.

    Args:
        catalogue: Holds the tiles.
        model: The model.
        limits: What is still no drift.

    Returns:
        Nothing of a model that has no note of its training tiles, or of fewer tiles than those.
    """
    if REFERENCE not in model.training:
        return []
    reference = Reference(**model.training[REFERENCE])
    view = current_view(catalogue, model.primary_sensor, model.tile_size, model.bands)
    probe = view.frame(probe_rows(view.tile_ids.to_pandas(), _with_spare(reference.tiles)))
    features = _probe_features(catalogue, model, probe, reference.tiles)
    if len(features) < reference.tiles:
        return []
    return measure_drift(model, features, reference, limits)


def _with_spare(count: int) -> int:
    """So many tiles and a few more, for those without data in one of the bands."""
    return count + count // 10


def _probe_features(
    catalogue: Catalogue, model: Model, probe: pd.DataFrame, count: int
) -> Features:
    """Features, unscaled, of so many of the probe's tiles that have all of them."""
    features = observation_features(catalogue, model.primary_sensor, probe, model.extractor)
    complete = np.flatnonzero(~np.isnan(features).any(axis=1))
    return features[complete[probe_rows(probe["tile_id"].iloc[complete], count)]]
