"""Codes of published observations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows
from data_catalog.feature_cache import feature_batches
from rshash.model import Model


def encode_observations(
    catalogue: Catalogue,
    model: Model,
    observations: pd.DataFrame,
    advance: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Codes of observations, as rows for ``publish_code_tables``.

    A tile that has no data at all in a band that the model reads gets no row.

    Args:
        catalogue: Holds the observations' segments.
        model: Makes the codes.
        observations: As ``current_observations`` returns them, of the model's primary sensor.
        advance: Called with the number of tiles done since the last call.
    """
    complete = np.zeros(len(observations), np.bool_)
    codes = [np.empty((0, -(-model.bits // 64)), np.uint64)]
    for at, features in feature_batches(
        catalogue, model.primary_sensor, observations, model.extractor, advance
    ):
        complete[at] = ~np.isnan(features).any(axis=1)
        codes.append(model.encode_features(features[complete[at]]))
    return code_rows(observations[complete], np.concatenate(codes))
