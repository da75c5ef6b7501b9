"""The quality gate before publishing codes, and the codes that it keeps back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    ProposedCodes,
    codes_of,
    collection_of,
    publish_code_tables,
    published_table,
)
from data_catalog.errors import CatalogueError
from data_catalog.feature_cache import observation_features
from data_catalog.labels import published_labels
from rshash.model import Model
from rshash.quality import (
    Measure,
    Thresholds,
    measure_codes,
    measure_features,
    measure_flips,
    measure_labels,
)

PROBE_TILES = 500
"""Always the same of a catalogue's tiles, so that figures of two nights compare."""

LAND_COVER_SHARE = 0.2
"""Share of a tile from which a class of land cover counts."""

KEPT_CODES, KEPT_MEASURES = "codes.parquet", "quality.json"


def assess(
    catalogue: Catalogue,
    model: Model,
    proposed: ProposedCodes,
    observations: gpd.GeoDataFrame,
    thresholds: Thresholds,
) -> list[Measure]:
    """Measures codes before they are published.

    Args:
        catalogue: Holds the observations' segments, and land cover if there is some.
        model: Made the codes.
        proposed: All codes as they would be published.
        observations: The current ones of the model's sensor, as ``current_observations`` returns
            them.
        thresholds: What the codes must fulfil.
    """
    classes = len(model.training.get("classes", ()))
    if classes:
        # Codes that are learned from labels are as many as there are classes to tell apart.
        thresholds = replace(thresholds, distinct=min(thresholds.distinct, classes))
    codes = codes_of(proposed.table, model.bits)
    measures = measure_codes(codes, model.bits, thresholds)
    measures += measure_flips(proposed.flipped_bits, model.bits, thresholds)
    probe: pd.DataFrame = _probe_rows(proposed.table, observations)
    seen = observations.set_index("tile_id", drop=False).loc[probe["tile_id"]]
    features = observation_features(
        catalogue, model.primary_sensor, seen.reset_index(drop=True), model.extractor
    )
    complete = np.flatnonzero(~np.isnan(features).any(axis=1))
    probe, features = probe.iloc[complete], features[complete]
    measures += measure_features(codes_of(probe, model.bits), features, thresholds)
    return measures + _by_land_cover(catalogue, model, probe, thresholds)


def _probe_rows(table: pd.DataFrame, observations: gpd.GeoDataFrame) -> pd.DataFrame:
    """Rows of the probe set: the tiles whose IDs have the smallest hashes."""
    current = pd.MultiIndex.from_frame(pd.DataFrame(observations[["tile_id", "datetime"]]))
    rows = table[pd.MultiIndex.from_frame(table[["tile_id", "datetime"]]).isin(current)]
    hashes = pd.util.hash_array(rows["tile_id"].to_numpy(object))
    return rows.iloc[np.sort(np.argsort(hashes, kind="stable")[:PROBE_TILES])]


def _by_land_cover(
    catalogue: Catalogue, model: Model, probe: pd.DataFrame, thresholds: Thresholds
) -> list[Measure]:
    collections = [one for one in catalogue.collections() if one.startswith("land-cover-")]
    if not collections:
        return []
    labels = published_labels(catalogue, collections[-1], probe["tile_id"], LAND_COVER_SHARE)
    labelled = probe[probe["tile_id"].isin(labels.tile_ids)]
    at = pd.Index(labels.tile_ids).get_indexer(pd.Index(labelled["tile_id"]))
    return measure_labels(codes_of(labelled, model.bits), labels.values[at], thresholds)


def keep_back(
    catalogue: Catalogue, model_id: str, rows: pd.DataFrame, measures: Sequence[Measure]
) -> Path:
    """Keeps codes that are not to be published, for somebody to look at; the last of a model.

    Args:
        catalogue: The catalogue, which keeps them beside what is published.
        model_id: The model that made them.
        rows: As ``code_rows`` makes them.
        measures: What was found.

    Returns:
        The folder that they are kept in.
    """
    folder = _kept_folder(catalogue, model_id)
    with stac.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".{KEPT_CODES}"
        pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False), staged)
        (folder / KEPT_MEASURES).write_text(
            json.dumps([{**asdict(one), "passes": one.passes} for one in measures], indent=2)
        )
        staged.replace(folder / KEPT_CODES)
    return folder


def kept_back(catalogue: Catalogue, model_id: str) -> pd.DataFrame:
    """The codes of a model that were kept back last.

    Raises:
        CatalogueError: There are none.
    """
    path = _kept_folder(catalogue, model_id) / KEPT_CODES
    if not path.is_file():
        raise CatalogueError(
            f"No codes of {model_id} are kept back in {catalogue.root}: there is nothing to "
            "approve. Make codes with `rshash rehash`."
        )
    return pd.read_parquet(path)


def publish_kept_back(catalogue: Catalogue, model: Model) -> list[dict[str, object]]:
    """Publishes the codes of a model that were kept back last, as somebody approves them.

    Codes of observations that are older than what was published meanwhile are left out.

    Returns:
        As ``publish_code_tables``.

    Raises:
        CatalogueError: There are none.
    """
    rows = kept_back(catalogue, model.model_id)
    published = [
        published_table(catalogue, item)[["tile_id", "datetime"]]
        for item in catalogue.items(collection_of(model.model_id))
    ]
    if published:
        newest = pd.concat(published).set_index("tile_id")["datetime"]
        before = newest.reindex(rows["tile_id"]).to_numpy()
        rows = rows[~(before > rows["datetime"].to_numpy())]
    report = publish_code_tables(catalogue, model, rows.reset_index(drop=True))
    drop_kept_back(catalogue, model.model_id)
    return report


def drop_kept_back(catalogue: Catalogue, model_id: str) -> None:
    """Removes the codes of a model that were kept back, if there are some."""
    folder = _kept_folder(catalogue, model_id)
    for name in (KEPT_CODES, KEPT_MEASURES):
        (folder / name).unlink(missing_ok=True)


def _kept_folder(catalogue: Catalogue, model_id: str) -> Path:
    return catalogue.root / ".kept-back" / model_id
