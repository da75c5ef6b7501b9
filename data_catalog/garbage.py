"""What a catalogue can do without: orphans, and what is superseded for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pystac
from numpy.typing import NDArray

from data_catalog import stac
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.code_schema import collection_of as codes_of_model
from data_catalog.code_tables import published_columns
from data_catalog.current_view import current_view, joined, positions_in
from data_catalog.leftovers import given_up, is_left, stale_caches
from data_catalog.orphans import is_in_use, is_orphan, orphans
from data_catalog.segments import INDEX_SCHEMA, index_columns, published_bands
from data_catalog.store import FolderStore

if TYPE_CHECKING:
    from data_catalog.object_store import BucketStore

Kind = Literal["superseded", "orphan", "leftover"]

_OBSERVED = pa.schema([INDEX_SCHEMA.field("tile_id"), INDEX_SCHEMA.field("datetime")])


@dataclass(frozen=True)
class Garbage:
    """Something that can be removed.

    Attributes:
        name: Its path in the catalogue.
        why: What makes it garbage.
        size: Bytes.
        kind: An item that is superseded, an orphan that nothing points to, or what is left in the
            working folder on this machine, in which the name then is.
    """

    name: str
    why: str
    size: int
    kind: Kind


def garbage(
    catalogue: Catalogue, keep: int | None = None, older_than_days: float | None = None
) -> list[Garbage]:
    """What may be removed: orphans and leftovers, and what is superseded, beyond a retention.

    Superseded are versions of code tables that are not current, segments none of whose
    observations is current, and models without codes. Never among them: anything current, the model
    in use and the newest one, segments that current codes or a model that stays were made from, and
    what a run may be about to publish.

    Args:
        catalogue: The catalogue.
        keep: How many superseded ones stay, of each code table, of each sensor and of the models.
        older_than_days: Only what was published longer ago. Without this and ``keep``: none
            of what is superseded.
    """
    left = [name for name in orphans(catalogue) if not is_in_use(catalogue, name)]
    superseded: dict[str, str] = {}
    if keep is not None or older_than_days is not None:
        before = datetime.now(UTC) - timedelta(days=older_than_days or 0.0)
        retention = _Retention(catalogue, keep or 0, stac.timestamp(before))
        superseded = _superseded(catalogue, retention)
    working = FolderStore(catalogue.root)
    return [
        *_described(working, given_up(catalogue), "leftover"),
        *_described(catalogue.store, dict.fromkeys(left, "nothing points to it"), "orphan"),
        *_described(catalogue.store, superseded, "superseded"),
        *_described(working, stale_caches(catalogue, superseded), "leftover"),
    ]


def _described(
    store: FolderStore | BucketStore, found: dict[str, str], kind: Kind
) -> Iterator[Garbage]:
    return (Garbage(name, why, store.size(name), kind) for name, why in found.items())


def remove(
    catalogue: Catalogue,
    found: Iterable[Garbage],
    removed: Callable[[Garbage], None] = lambda one: None,
) -> None:
    """Removes garbage, but what has come into use meanwhile; it can be cut off and repeated.

    Args:
        catalogue: The catalogue.
        found: As ``garbage`` found it.
        removed: Called with each that is gone.
    """
    found = list(found)
    models = [Path(one.name).name for one in found if one.name.startswith(f"{MODELS}/")]
    for one in found:
        if one.kind == "leftover":
            is_gone = _remove_leftover(catalogue, one.name)
        else:
            is_gone = _remove_stored(catalogue, one, models)
        if is_gone:
            removed(one)


def _remove_leftover(catalogue: Catalogue, name: str) -> bool:
    working = FolderStore(catalogue.root)
    if not working.exists(name) or not is_left(catalogue, name):
        return False
    working.remove(name)
    return True


def _remove_stored(catalogue: Catalogue, one: Garbage, models: list[str]) -> bool:
    collection_id, _, item_id = one.name.partition("/")
    with catalogue.store.lock(), catalogue.removing(collection_id, item_id):
        if one.kind == "orphan":
            if not is_orphan(catalogue, one.name) or is_in_use(catalogue, one.name):
                return False
        elif _is_superseded(catalogue, collection_id, item_id, models):
            catalogue.withdraw(collection_id, item_id)
        else:
            return False
        catalogue.store.remove(one.name)
    return True


@dataclass(frozen=True)
class _Retention:
    catalogue: Catalogue
    keep: int
    before: str

    def beyond(self, collection_id: str, superseded: list[str]) -> list[str]:
        """Those of a collection's superseded items, oldest first, that go."""
        items = [
            self.catalogue.item(collection_id, item_id)
            for item_id in superseded[: max(len(superseded) - self.keep, 0)]
        ]
        return [item.id for item in items if item.properties["created"] <= self.before]


def _superseded(catalogue: Catalogue, retention: _Retention) -> dict[str, str]:
    """Names of the superseded items that go, with why."""
    models = retention.beyond(MODELS, _unused_models(catalogue))
    found = {}
    for collection_id in catalogue.collections():
        if collection_id.startswith("codes-"):
            for versions in _superseded_versions(catalogue, collection_id):
                for item_id in retention.beyond(collection_id, versions):
                    found[f"{collection_id}/{item_id}"] = "it is not current"
        elif collection_id.startswith("tiles-"):
            replaced = _replaced_segments(catalogue, collection_id, models)
            for item_id in retention.beyond(collection_id, _uncoded(catalogue, replaced)):
                found[f"{collection_id}/{item_id}"] = "newer observations replaced all of it"
        elif collection_id.removeprefix("labels-") in models:
            for item_id in catalogue.item_ids(collection_id):
                found[f"{collection_id}/{item_id}"] = "labels of a model without codes"
    # Last: labels lead to their model.
    return found | {f"{MODELS}/{model_id}": "a model without codes" for model_id in models}


def _is_superseded(
    catalogue: Catalogue, collection_id: str, item_id: str, models: list[str]
) -> bool:
    """Whether an item that was found superseded, along with models, still is."""
    unused = [model_id for model_id in _unused_models(catalogue) if model_id in models]
    if collection_id == MODELS:
        return item_id in unused
    if collection_id.startswith("labels-"):
        return collection_id.removeprefix("labels-") in unused
    if collection_id.startswith("tiles-"):
        replaced = _replaced_segments(catalogue, collection_id, unused)
        return item_id in _uncoded(catalogue, [one for one in replaced if one.id == item_id])
    # Codes may have been gone back to.
    return item_id not in catalogue.item_ids(collection_id)


def _superseded_versions(catalogue: Catalogue, collection_id: str) -> Iterable[list[str]]:
    current = catalogue.item_ids(collection_id)
    for item_id in current:
        yield [one for one in catalogue.versions(collection_id, item_id) if one not in current]


def _unused_models(catalogue: Catalogue) -> list[str]:
    return [
        model_id
        for model_id in catalogue.model_ids()[:-1]
        if model_id != catalogue.model_in_use() and not catalogue.item_ids(codes_of_model(model_id))
    ]


def _replaced_segments(
    catalogue: Catalogue, collection_id: str, without_models: list[str]
) -> list[pystac.Item]:
    """Segments that nothing current is in, and that no model that stays was trained on."""
    sensor = collection_id.removeprefix("tiles-")
    segments = catalogue.items(collection_id)
    used = _trained_on(catalogue, without_models)
    for bands in {frozenset(published_bands(segment)) for segment in segments}:
        view = current_view(catalogue, sensor, bands=bands)
        used |= {view.segments[number] for number in pc.unique(view.table["segment"]).to_pylist()}
    return [segment for segment in segments if segment.id not in used]


def _uncoded(catalogue: Catalogue, segments: list[pystac.Item]) -> list[str]:
    """Those of a sensor's segments that show something, but nothing that codes were made from."""
    if not segments:
        return []
    shown = [_shown(catalogue, segment) for segment in segments]
    observed = pa.concat_tables(shown)
    tile_ids, times = joined(observed["tile_id"]), _times(observed)
    is_coded = np.zeros(len(times), np.bool_)
    for table in _code_tables(catalogue, str(segments[0].properties["rshash:sensor"])):
        at = positions_in(joined(table["tile_id"]), tile_ids)
        known = np.flatnonzero(at >= 0)
        is_coded[known] |= _times(table)[at[known]] == times[known]
    parts = np.split(is_coded, np.cumsum([len(rows) for rows in shown])[:-1])
    return [
        segment.id
        for segment, coded in zip(segments, parts, strict=True)
        if len(coded) and not coded.any()
    ]


def _shown(catalogue: Catalogue, segment: pystac.Item) -> pa.Table:
    """Tile IDs and moments of a segment's valid observations."""
    index = index_columns(catalogue, segment, [*_OBSERVED.names, "state"])
    return index.filter(pc.equal(index["state"], "valid")).select(_OBSERVED.names).cast(_OBSERVED)


def _times(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["datetime"].cast(pa.int64()).to_numpy())


def _trained_on(catalogue: Catalogue, without_models: list[str]) -> set[str]:
    return {
        Path(str(link.target)).stem
        for model_id in catalogue.model_ids()
        if model_id not in without_models
        for link in catalogue.item(MODELS, model_id).get_links("derived_from")
    }


def _code_tables(catalogue: Catalogue, sensor: str) -> Iterator[pa.Table]:
    """Tile IDs and moments of the observations that current codes were made from."""
    for model_id in catalogue.model_ids():
        for item in catalogue.items(codes_of_model(model_id)):
            if item.properties["rshash:sensor"] == sensor:
                yield published_columns(catalogue, item, _OBSERVED.names).cast(_OBSERVED)
