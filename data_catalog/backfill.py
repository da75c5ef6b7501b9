"""Codes of all tiles by another model: what is to be made, and how good it is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_catalog.catalogue import Catalogue
from data_catalog.code_merging import as_arrow, measured_columns
from data_catalog.code_tables import (
    ProposedCodes,
    collection_of,
    published_columns,
    stale_observations,
)
from data_catalog.current_view import CurrentView, current_view
from data_catalog.encoding import encode_observations
from data_catalog.encoding_parts import EncodingPlan, plan_encoding
from data_catalog.models import publishable_rows
from data_catalog.probe_tiles import probe_rows
from data_catalog.quality_gate import assess
from rshash.model import Model
from rshash.quality import Measure, Thresholds

_NO_FLIPS = np.zeros(0, np.int64)
"""Codes of different models are never compared."""


def plan_zones(catalogue: Catalogue, model: Model) -> dict[str, EncodingPlan]:
    """What a model has to encode so that its codes are up to date, by zone.

    A zone that is up to date has no plan: a backfill that was cut off goes on with the others.
    """
    stale = stale_observations(catalogue, model.model_id, _current(catalogue, model))
    zones = stale["tile_id"].str.split("_").str[0]
    return {
        str(zone): plan_encoding(catalogue, model.model_id, observations)
        for zone, observations in stale.groupby(zones)
    }


def assess_sample(catalogue: Catalogue, model: Model, thresholds: Thresholds) -> list[Measure]:
    """Measures the codes that a model makes of a fixed choice of the tiles, before all are made."""
    view = _current(catalogue, model)
    chosen = view.frame(probe_rows(view.tile_ids.to_pandas()))
    rows = encode_observations(catalogue, model, chosen)
    rows = publishable_rows(catalogue, model, rows).assign(model_id=model.model_id)
    codes = ProposedCodes(as_arrow(rows, model.bits), _NO_FLIPS)
    return assess(catalogue, model, codes, view, thresholds)


def assess_published(catalogue: Catalogue, model: Model, thresholds: Thresholds) -> list[Measure]:
    """Measures all published codes of a model."""
    tables = [
        published_columns(catalogue, item, measured_columns(model.bits))
        for item in catalogue.items(collection_of(model.model_id))
    ]
    codes = ProposedCodes(pa.concat_tables(tables), _NO_FLIPS)
    return assess(catalogue, model, codes, _current(catalogue, model), thresholds)


def _current(catalogue: Catalogue, model: Model) -> CurrentView:
    return current_view(catalogue, model.primary_sensor, model.tile_size, model.bands)
