"""The quality gate before publishing codes, and the codes that it keeps back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    ProposedCodes,
    codes_of,
    collection_of,
    publish_code_tables,
    published_columns,
)
from data_catalog.current_view import CurrentView, joined, positions_in
from data_catalog.errors import CatalogueError
from data_catalog.feature_cache import observation_features
from data_catalog.labels import published_labels
from data_catalog.probe_tiles import PROBE_TILES, probe_rows
from rshash.errors import LabelError
from rshash.model import Model
from rshash.quality import (
    Measure,
    Thresholds,
    measure_codes,
    measure_features,
    measure_flips,
    measure_labels,
)

LAND_COVER_SHARE = 0.2
"""Share of a tile from which a class of land cover counts."""

KEPT_CODES, KEPT_MEASURES = "codes.parquet", "quality.json"


def assess(
    catalogue: Catalogue,
    model: Model,
    proposed: ProposedCodes,
    view: CurrentView,
    thresholds: Thresholds,
) -> list[Measure]:
    """Measures codes before they are published.

    Args:
        catalogue: Holds the observations' segments, and land cover if there is some.
        model: Made the codes.
        proposed: All codes as they would be published.
        view: The current observations of the model's sensor.
        thresholds: What the codes must fulfil.
    """
    classes = len(model.training.get("classes", ()))
    if classes:
        # Codes that are learned from labels are as many as there are classes to tell apart.
        thresholds = replace(thresholds, distinct=min(thresholds.distinct, classes))
    codes = codes_of(proposed.table, model.bits)
    measures = measure_codes(codes, model.bits, thresholds)
    measures += measure_flips(proposed.flipped_bits, model.bits, thresholds)
    rows, at = _probe_rows(proposed.table, view)
    probe, seen = proposed.table.take(pa.array(rows)), view.frame(at)
    features = observation_features(catalogue, model.primary_sensor, seen, model.extractor)
    complete = np.flatnonzero(~np.isnan(features).any(axis=1))
    probe, features = probe.take(pa.array(complete)), features[complete]
    scaled = model.scaling.apply(features)
    measures += measure_features(codes_of(probe, model.bits), scaled, thresholds)
    return measures + _by_land_cover(catalogue, model, probe, thresholds)


def _probe_rows(table: pa.Table, view: CurrentView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The probe set, of the tiles whose codes are of current pixels.

    Returns:
        Their rows in the table, and in the view.
    """
    tile_ids = joined(table["tile_id"])
    times = table["datetime"].cast(pa.int64()).to_numpy()
    at = view.positions(tile_ids)
    is_current = at >= 0
    is_current[is_current] = view.times[at[is_current]] == times[is_current]
    rows = np.flatnonzero(is_current)
    rows = rows[probe_rows(tile_ids.take(pa.array(rows)).to_pandas(), PROBE_TILES)]
    return rows, at[rows]


def _by_land_cover(
    catalogue: Catalogue, model: Model, probe: pa.Table, thresholds: Thresholds
) -> list[Measure]:
    collections = [one for one in catalogue.collections() if one.startswith("land-cover-")]
    if not collections:
        return []
    tile_ids = joined(probe["tile_id"])
    wanted = tile_ids.to_pylist()
    try:
        labels = published_labels(catalogue, collections[-1], wanted, LAND_COVER_SHARE)
    except LabelError:
        # These tiles have none, or a single class: that says nothing of their codes.
        return []
    at = positions_in(pa.array(labels.tile_ids, pa.string()), tile_ids)
    codes = codes_of(probe, model.bits)[at >= 0]
    return measure_labels(codes, labels.values[at[at >= 0]], thresholds)


@dataclass(frozen=True)
class KeptBack:
    """Codes that were kept back.

    Attributes:
        folder: Where.
        fingerprint: Hash of the codes' file.
    """

    folder: Path
    fingerprint: str


def keep_back(
    catalogue: Catalogue, model_id: str, rows: pd.DataFrame, measures: Sequence[Measure]
) -> KeptBack:
    """Keeps codes that are not to be published, for somebody to look at; the last of a model.

    Args:
        catalogue: The catalogue, which keeps them beside what is published.
        model_id: The model that made them.
        rows: As ``code_rows`` makes them.
        measures: What was found.
    """
    folder = _kept_folder(catalogue, model_id)
    with stac.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEPT_MEASURES).write_text(
            json.dumps([{**asdict(one), "passes": one.passes} for one in measures], indent=2)
        )
        with stac.replacing(folder / KEPT_CODES) as staged:
            pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False), staged)
            fingerprint = hashlib.sha256(staged.read_bytes()).hexdigest()
    return KeptBack(folder, fingerprint)


def kept_back(catalogue: Catalogue, model_id: str, fingerprint: str | None = None) -> pd.DataFrame:
    """The codes of a model that were kept back last.

    Args:
        catalogue: The catalogue.
        model_id: The model.
        fingerprint: Of the codes that are meant; None for whichever they are.

    Raises:
        CatalogueError: There are none, or others by now.
    """
    path = _kept_folder(catalogue, model_id) / KEPT_CODES
    if not path.is_file():
        raise CatalogueError(
            f"No codes of {model_id} are kept back in {catalogue.root}: there is nothing to "
            "approve. Make codes with `rshash rehash`."
        )
    content = path.read_bytes()
    if fingerprint not in (None, hashlib.sha256(content).hexdigest()):
        raise CatalogueError(
            f"The codes of {model_id} that are kept back in {catalogue.root} are another run's by "
            "now: look at what its page says of them, and approve them there or with `rshash "
            "rehash --approve`."
        )
    return pd.read_parquet(BytesIO(content))


def publish_kept_back(
    catalogue: Catalogue, model: Model, fingerprint: str | None = None
) -> list[dict[str, object]]:
    """Publishes the codes of a model that were kept back last, as somebody approves them.

    Codes of observations that are older than what was published meanwhile are left out.

    Args:
        catalogue: The catalogue.
        model: The model.
        fingerprint: As :func:`kept_back` takes it.

    Returns:
        As ``publish_code_tables``.

    Raises:
        CatalogueError: There are none, or others by now.
    """
    rows = kept_back(catalogue, model.model_id, fingerprint)
    tile_ids = pa.array(rows["tile_id"], pa.string())
    times = rows["datetime"].to_numpy("datetime64[us]").astype(np.int64)
    is_older = np.zeros(len(rows), np.bool_)
    for item in catalogue.items(collection_of(model.model_id)):
        table = published_columns(catalogue, item, ["tile_id", "datetime"])
        at = positions_in(joined(table["tile_id"]), tile_ids)
        known = np.flatnonzero(at >= 0)
        published = table["datetime"].cast(pa.int64()).to_numpy()[at[known]]
        is_older[known] |= published > times[known]
    rows = rows[~is_older]
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
