"""What the service answers from: one version of the catalogue, opened, and the next as it comes."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as release

import orjson
import pandas as pd

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.code_schema import collection_of
from data_catalog.labels import pseudo_labels
from data_catalog.query import PublishedCodes, open_codes
from data_catalog.segments import collection_of as segments_of
from data_catalog.service.metrics import Metrics
from data_catalog.service.pictures import TilePictures
from rshash.errors import RshashError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One version of the catalogue, opened.

    Attributes:
        version: Hash of what is published and in use; another one with every publication.
        codes: The model's codes.
        pictures: The tiles' pictures.
        labels: Number of each tile's likeliest pseudo-label, by tile ID.
        label_count: How many pseudo-labels the model knows; 0 for none.
        bbox: West, south, east and north of all tiles, degrees.
        period: Moments of the first and the last observation.
        attribution: Whom to credit.
    """

    version: str
    codes: PublishedCodes
    pictures: TilePictures
    labels: pd.Series[int]
    label_count: int
    bbox: list[float]
    period: list[str]
    attribution: str

    @property
    def etag(self) -> str:
        """The entity tag of all answers from this version."""
        return f'W/"{self.version}"'

    def labels_of(self, tile_ids: Sequence[str]) -> list[int | None]:
        """Numbers of the likeliest pseudo-labels of tiles, None where there is none."""
        if not self.label_count:
            return [None] * len(tile_ids)
        found = self.labels.reindex(pd.Index(tile_ids), fill_value=-1).tolist()
        return [label if label >= 0 else None for label in found]


def published_version(catalogue: Catalogue, model_id: str | None = None) -> str:
    """Hash of the IDs of all that answers are made from, and of rshash's release.

    Raises:
        CatalogueError: No such model is published.
    """
    model_id = catalogue.model_id(model_id)
    sensor = catalogue.item(MODELS, model_id).properties["rshash:sensor"]
    # Another model's codes, as a backfill publishes them for hours, change no answer.
    collections = (collection_of(model_id), f"labels-{model_id}", segments_of(sensor))
    content = [release("rshash"), model_id, *map(catalogue.item_ids, collections)]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:20]


def open_snapshot(catalogue: Catalogue, model_id: str | None = None) -> Snapshot:
    """Opens the catalogue as it is now.

    Raises:
        CatalogueError: No such model is published, or a table cannot be read.
        QueryError: The model has no published codes.
    """
    # Before the rest is read: what is published meanwhile is then found by the next look.
    version = published_version(catalogue, model_id)
    codes = open_codes(catalogue, model_id)
    labels, count = _labels(catalogue, codes.model_id)
    pictures = TilePictures(catalogue, codes.sensor)
    published = catalogue.collection(collection_of(codes.model_id))
    collection = published.to_dict(include_self_link=False, transform_hrefs=False)
    extent = collection["extent"]
    return Snapshot(
        version,
        codes,
        pictures,
        labels,
        count,
        bbox=extent["spatial"]["bbox"][0],
        period=extent["temporal"]["interval"][0],
        attribution=collection.get("attribution", ""),
    )


def _labels(catalogue: Catalogue, model_id: str) -> tuple[pd.Series[int], int]:
    collection_id = f"labels-{model_id}"
    if not catalogue.item_ids(collection_id):
        return pd.Series(dtype=int), 0
    frame, classes = pseudo_labels(catalogue, collection_id)
    likeliest = frame[classes].to_numpy().argmax(axis=1)
    return pd.Series(likeliest, index=pd.Index(frame["tile_id"])), len(classes)


class LiveCatalogue:
    """The newest version that could be opened; requests in flight keep the one they began with."""

    def __init__(
        self, catalogue: Catalogue, model_id: str | None, poll_seconds: float, metrics: Metrics
    ) -> None:
        """Opens the catalogue.

        Args:
            catalogue: The catalogue.
            model_id: The model to serve; None for the one in use, whichever that will be.
            poll_seconds: How often to look for a new version.
            metrics: Told of every version.
        """
        self._catalogue = catalogue
        self._model_id = model_id
        self._poll_seconds = poll_seconds
        self._metrics = metrics
        self.current = open_snapshot(catalogue, model_id)
        _spare_what_stays()
        metrics.serves(self.current.version, len(self.current.codes))

    async def follow(self) -> None:
        """Looks for new versions until it is cancelled; what cannot be opened is passed over."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                version = await asyncio.to_thread(
                    published_version, self._catalogue, self._model_id
                )
                if version == self.current.version:
                    continue
                self.current = await asyncio.to_thread(
                    open_snapshot, self._catalogue, self._model_id
                )
            except (RshashError, OSError, ValueError) as error:
                self._metrics.reload_failures.inc()
                log.warning("The catalogue's new version is not served: %s", error)
                continue
            _spare_what_stays()
            self._metrics.reloads.inc()
            self._metrics.serves(self.current.version, len(self.current.codes))
            log.info("Serving version %s", self.current.version)


def _spare_what_stays() -> None:
    # Else every hundredth answer waits while the garbage collector walks over all of it.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
