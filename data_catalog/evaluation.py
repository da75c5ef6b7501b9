"""Evaluation of published codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pystac

from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_columns, code_table_schema, collection_of
from data_catalog.code_tables import (
    LEARNED,
    codes_of,
    published_columns,
    stale_observations,
)
from data_catalog.current_view import current_view
from data_catalog.errors import QueryError
from data_catalog.feature_cache import observation_features
from data_catalog.models import load_model
from rshash.codes import pack
from rshash.errors import LabelError
from rshash.features import Features
from rshash.labels import TileLabels
from rshash.model import Model
from rshash.report import CodedTiles, EvaluationReport, evaluate
from rshash.statistics import flipped_bits

MOST_TILES = 50_000
"""Of more tiles this many are drawn, for their features are compared in memory."""


def evaluate_codes(
    catalogue: Catalogue, model_id: str | None = None, labels: TileLabels | None = None
) -> EvaluationReport:
    """Evaluates a model's published codes, each tile being searched for among all others.

    Tiles that have a newer observation than their code are left out.

    Args:
        catalogue: Holds the codes.
        model_id: The model; without an ID the one in use.
        labels: With them the labelled tiles alone are evaluated, by the labels they share.

    Raises:
        CatalogueError: No such model is published.
        QueryError: The model has no published codes, or all its tiles have newer observations.
        LabelError: None of the coded tiles has a label.
    """
    model = load_model(catalogue, model_id)
    check_coded(catalogue, model.model_id)
    items = catalogue.items(collection_of(model.model_id))
    table = _rows(catalogue, items, model.bits)
    view = current_view(catalogue, model.primary_sensor, model.tile_size, model.extractor.bands)
    stale = stale_observations(catalogue, model.model_id, view)["tile_id"]
    is_known = view.positions(pa.array(table.index, pa.string())) >= 0
    table = table[is_known & ~table.index.isin(stale)]
    if table.empty:
        raise QueryError(
            f"All tiles of {model.model_id} have newer observations than their codes: run "
            "`rshash rehash` first."
        )
    if labels is not None:
        table = table[table.index.isin(labels.tile_ids)]
        if table.empty:
            raise LabelError(
                f"None of the {len(labels)} labelled tiles has a current code of {model.model_id}."
            )
    notes = _drawn_note(len(table))
    if len(table) > MOST_TILES:
        table = table.sample(MOST_TILES, random_state=0).sort_index()
    tile_ids = pa.array(table.index, pa.string())
    before = _rows(catalogue, _versions_before(catalogue, items), model.bits, tile_ids)
    observations = view.frame(view.positions(tile_ids))
    features = observation_features(catalogue, model.primary_sensor, observations, model.extractor)
    is_learned = (table["code_source"] == LEARNED).to_numpy()
    tiles = _coded_tiles(model, table, features, labels, with_learned=bool(is_learned.any()))
    if is_learned.any() and labels is not None:
        notes.append(
            f"{int(is_learned.sum()):,} of the tiles have codes that were learned from labels: "
            "where those are the labels used here, this is how well they were learned, not how "
            "well other tiles are found."
        )
    report = evaluate(model.method, model.bits, tiles)
    report = replace(report, notes=(*report.notes, *notes))
    return _with_flips(report, table, before)


def check_coded(catalogue: Catalogue, model_id: str) -> None:
    """Refuses a model without codes.

    Raises:
        QueryError: None are published.
    """
    if not catalogue.item_ids(collection_of(model_id)):
        raise QueryError(
            f"No codes of model {model_id} are published in {catalogue.store}: "
            "make them with `rshash rehash`, or name another model with --model."
        )


def _drawn_note(tiles: int) -> list[str]:
    return [f"Of {tiles:,} tiles {MOST_TILES:,} were drawn."] if tiles > MOST_TILES else []


def _coded_tiles(
    model: Model,
    table: pd.DataFrame,
    features: Features,
    labels: TileLabels | None,
    *,
    with_learned: bool,
) -> CodedTiles:
    published = codes_of(table, model.bits)
    outputs, codes, learned = None, published, None
    if with_learned:
        outputs = model.outputs(features)
        codes, learned = pack(outputs), published
    values = None
    if labels is not None:
        at = pd.Index(labels.tile_ids).get_indexer(table.index)
        values = labels.values[at]
    return CodedTiles(codes, values, features, outputs, learned)


def _rows(
    catalogue: Catalogue, items: list[pystac.Item], bits: int, tile_ids: pa.Array | None = None
) -> pd.DataFrame:
    """Codes and their sources in some tables, by tile ID: of some tiles, or of all."""
    columns = ["tile_id", "code_source", *code_columns(bits)]
    tables = [pa.schema(map(code_table_schema(bits).field, columns)).empty_table()]
    for item in items:
        table = published_columns(catalogue, item, columns)
        tables.append(
            table if tile_ids is None else table.filter(pc.is_in(table["tile_id"], tile_ids))
        )
    return pa.concat_tables(tables).to_pandas().set_index("tile_id").sort_index()


def _versions_before(catalogue: Catalogue, items: list[pystac.Item]) -> list[pystac.Item]:
    return [
        catalogue.item(str(item.collection_id), Path(str(link.target)).stem)
        for item in items
        for link in item.get_links("predecessor-version")
    ]


def _with_flips(
    report: EvaluationReport, table: pd.DataFrame, before: pd.DataFrame
) -> EvaluationReport:
    """The report with how far codes differ from the version before, over tiles that are in both."""
    common = table.index.intersection(before.index)
    if common.empty:
        return report
    old, new = (codes_of(frame.loc[common], report.bits) for frame in (before, table))
    flips = flipped_bits(old, new)
    return replace(
        report, flipped_bits=float(flips.mean()), flipped_tiles=float((flips > 0).mean())
    )
