"""Which scenes published segments have considered for which tiles: what is left over is new."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pystac
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import joined, scenes_as_text, scenes_of
from data_catalog.reading import NOT_OBSERVED, Composite
from data_catalog.segments import (
    collection_of,
    index_columns,
    published_bands,
    published_composite,
)

COLUMNS = ["tile_id", "considered_scenes", "state", "reason", "clear_fraction"]


@dataclass(frozen=True)
class Considered:
    """What has been considered for some tiles.

    Attributes:
        groups: For each tile the number of its set of scenes, int64.
        scenes: The sets: IDs of the scenes that were considered, of those asked about.
        any_known: Whether a segment tells of any of the tiles.
    """

    groups: NDArray[np.int64]
    scenes: list[frozenset[str]]
    any_known: bool


def considered_scenes(
    catalogue: Catalogue,
    sensor_id: str,
    tile_ids: Sequence[str],
    scene_ids: Collection[str],
    *,
    bands: Collection[str],
    minimum_clear: float,
    composite: Composite,
) -> Considered:
    """What segments have considered for tiles, as far as it need not be looked at again.

    What was too cloudy for an earlier, stricter run gets a second chance, and so does what could
    not be read.

    Args:
        catalogue: Holds the segments.
        sensor_id: Sensor ID.
        tile_ids: The tiles.
        scene_ids: The scenes that are asked about.
        bands: Segments that lack one of them do not count.
        minimum_clear: Clear fraction below which a tile is invalid.
        composite: Segments of the other kind do not count.
    """
    wanted, known = frozenset(scene_ids), False
    # Its hash table is made once, whatever the number of segments.
    places = pd.Index(np.array(tile_ids, object))
    groups, numbers = np.zeros(len(places), np.int64), {frozenset[str](): 0}
    for item in catalogue.items(collection_of(sensor_id)):
        if not published_bands(item).issuperset(bands) or published_composite(item) != composite:
            continue
        rows = _settled_rows(catalogue, item, minimum_clear)
        at = places.get_indexer(joined(rows["tile_id"]).to_numpy(zero_copy_only=False))
        is_asked = at >= 0
        if not is_asked.any():
            continue
        known = True
        texts = joined(scenes_as_text(rows["considered_scenes"]))
        seen = [wanted.intersection(scenes) for scenes in scenes_of(texts.dictionary)]
        at, of = at[is_asked], texts.indices.to_numpy()[is_asked]
        pairs, places_of = np.unique(groups[at] * len(seen) + of, return_inverse=True)
        sets = list(numbers)
        joint = [sets[pair // len(seen)] | seen[pair % len(seen)] for pair in pairs.tolist()]
        groups[at] = np.array([numbers.setdefault(one, len(numbers)) for one in joint])[places_of]
    return Considered(groups, list(numbers), known)


def told_before(
    catalogue: Catalogue,
    sensor_id: str,
    bands: Collection[str],
    composite: Composite,
    index: pd.DataFrame,
) -> str | None:
    """A segment that tells the same of the same tiles, all of which are invalid.

    Args:
        catalogue: Holds the segments.
        sensor_id: Sensor ID.
        bands: Segments that lack one of them do not count.
        composite: Nor do segments of the other kind.
        index: Rows of a segment's index, of which nothing is published yet.

    Returns:
        The newest segment that has all tiles invalid for the same reason, and has considered the
        same scenes for them; None if there is none, or a tile is valid.
    """
    if (index["state"] == "valid").any():
        return None
    told, tile_ids = _told(index), pa.array(index["tile_id"], pa.string())
    for segment_id in reversed(catalogue.item_ids(collection_of(sensor_id))):
        [item] = catalogue.items(collection_of(sensor_id), [segment_id])
        if not published_bands(item).issuperset(bands) or published_composite(item) != composite:
            continue
        rows = index_columns(catalogue, item, ["tile_id", "considered_scenes", "state", "reason"])
        is_asked = pc.is_in(rows["tile_id"], tile_ids)
        rows = rows.filter(pc.and_(is_asked, pc.equal(rows["state"], "invalid")))
        if rows.num_rows == len(index) and told <= _told(rows.to_pandas()):
            return segment_id
    return None


def _told(index: pd.DataFrame) -> set[tuple[str, ...]]:
    rows = zip(index["tile_id"], index["reason"], index["considered_scenes"], strict=True)
    return {(tile, reason, scene) for tile, reason, scenes in rows for scene in ("", *scenes)}


def _settled_rows(catalogue: Catalogue, item: pystac.Item, minimum_clear: float) -> pa.Table:
    rows = index_columns(catalogue, item, COLUMNS)
    is_settled = pc.or_(
        pc.equal(rows["state"], "valid"),
        pc.or_(
            pc.fill_null(
                pc.less(rows["clear_fraction"], pa.scalar(minimum_clear, pa.float32())), False
            ),
            pc.fill_null(pc.starts_with(rows["reason"], NOT_OBSERVED), False),
        ),
    )
    return rows.filter(is_settled)
