"""Training on what a catalogue holds, from its tiles to a published model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.catalogue import Catalogue
from data_catalog.drift import with_reference
from data_catalog.feature_cache import joined_features
from data_catalog.models import publish_training
from data_catalog.observations import current_observations
from data_catalog.pixel_rows import PixelRows
from data_catalog.segments import INDEX_SCHEMA, collection_of, index_columns
from data_catalog.training_folders import reserved
from rshash.ahcl import AhclSettings, AhclTraining, check_labelled_tiles
from rshash.checkpoints import TRAINING_VERSION, fingerprint
from rshash.errors import LabelError
from rshash.features import Extractor
from rshash.job import TrainingJob, run_job
from rshash.labels import TileLabels, align
from rshash.model import build_model
from rshash.mrhash import MrHashTraining, train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.pixels import TilePixels
from rshash.progress import ReportProgress
from rshash.streaming import FeatureFile


def known_tiles(catalogue: Catalogue, sensor: str, tile_size: int) -> set[str]:
    """IDs of the tiles of a size that a sensor was asked for, clearly seen or not."""
    tables = [pa.schema([INDEX_SCHEMA.field("tile_id")]).empty_table()]
    for item in catalogue.items(collection_of(sensor)):
        tables.append(index_columns(catalogue, item, ["tile_id"]))
    tile_ids = pc.unique(pa.concat_tables(tables)["tile_id"])
    return set(tile_ids.filter(pc.starts_with(tile_ids, f"UTM{tile_size}-")).to_pylist())


@dataclass(frozen=True)
class TileTraining:
    """A training on a catalogue's tiles, as `plan_training` makes it.

    Attributes:
        catalogue: Holds the tiles, and gets the model.
        settings: The method's settings.
        extractors: By sensor ID, the primary sensor first.
        features: Features of the tiles by sensor ID, the primary sensor first.
        segments: IDs of the segments that hold what the features are of, by sensor ID.
        observations: What it learns from, in the features' order.
        labels: Labels in the same order, for AHCL.
        tile_size: Metres on a side.
        from_pixels: Whether the primary sensor's extractor is tuned.
    """

    catalogue: Catalogue
    settings: MrHashSettings | AhclSettings
    extractors: dict[str, Extractor]
    features: dict[str, FeatureFile]
    segments: dict[str, list[str]]
    observations: pd.DataFrame
    labels: TileLabels | None
    tile_size: int
    from_pixels: bool = False

    @property
    def primary_sensor(self) -> str:
        """The sensor that codes are made from."""
        return next(iter(self.features))

    @property
    def folder(self) -> Path:
        """Where its state is kept until it is published: the same for the same training."""
        return self.catalogue.root / ".cache" / "training" / self._identity()

    def reserved(self) -> AbstractContextManager[None]:
        """A context in which no other run has this training, for `run` and `publish`.

        Raises:
            TrainingError: Another run has it.
        """
        return reserved(self.folder)

    def run(
        self, progress: ReportProgress | None = None, processes: int = 1
    ) -> MrHashTraining | AhclTraining:
        """Trains, going on where an earlier run of the same training was ended.

        Args:
            progress: Called after every epoch.
            processes: That share the work, see `rshash.job.run_job`; 1 for pixels.
        """
        if self.from_pixels:
            return self._tune(progress)
        self.folder.mkdir(parents=True, exist_ok=True)
        labels = self.folder / "labels.npy"
        if self.labels is not None:
            np.save(labels, self.labels.values)
        job = TrainingJob(
            method="mrhash" if self.labels is None else "ahcl",
            settings=asdict(self.settings),
            features=[str(file.path) for file in self.features.values()],
            output=str(self.folder / "result"),
            labels=None if self.labels is None else str(labels),
            classes=() if self.labels is None else self.labels.classes,
            checkpoint=str(self.folder),
        )
        return run_job(job, progress, processes)

    def publish(self, training: MrHashTraining | AhclTraining) -> str:
        """Publishes the model with all that training gave, and returns its ID."""
        tuned = training.extractor if isinstance(training, MrHashTraining) else None
        primary, *secondary = self.features
        model = build_model(
            training,
            tuned or self.extractors[primary],
            primary_sensor=primary,
            secondary_sensors=secondary,
            tile_size=self.tile_size,
        )
        model = with_reference(self.catalogue, model, self.observations)
        model_id = publish_training(
            self.catalogue, model, training, self.observations, self.segments
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        return model_id

    def _tune(self, progress: ReportProgress | None) -> MrHashTraining:
        assert isinstance(self.settings, MrHashSettings)
        extractor = self.extractors[self.primary_sensor]
        rows = PixelRows(self.catalogue, self.primary_sensor, self.observations, extractor.bands)
        return train_mrhash(
            list(self.features.values()),
            self.settings,
            pixels=TilePixels(rows, rows.tile_shape, extractor),
            progress=progress,
            checkpoint=self.folder,
        )

    def _identity(self) -> str:
        content: dict[str, Any] = {
            "settings": asdict(self.settings),
            # Named by their extractor and observations.
            "features": [file.path.name for file in self.features.values()],
            "from_pixels": self.from_pixels,
            "version": TRAINING_VERSION,
        }
        if self.labels is not None:
            content["labels"] = [self.labels.classes, fingerprint(self.labels.values)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        return digest.hexdigest()[:20]


def plan_training(
    catalogue: Catalogue,
    extractors: dict[str, Extractor],
    settings_of: Callable[[int], MrHashSettings | AhclSettings],
    tile_size: int,
    *,
    labels: TileLabels | None = None,
    from_pixels: bool = False,
) -> TileTraining:
    """Gathers what a training needs; features that are not cached are computed.

    Args:
        catalogue: Holds the tiles.
        extractors: By sensor ID, the primary sensor first. Sensors that saw none of the tiles take
            no part; AHCL takes the primary one alone.
        settings_of: Gives the settings, which say the method, for a number of tiles.
        tile_size: Metres on a side.
        labels: For AHCL, which learns from the labelled tiles that the primary sensor has seen.
        from_pixels: Whether MrHash tunes the primary sensor's extractor too.

    Raises:
        LabelError: The primary sensor has seen no labelled tile, or those of one class alone.
    """
    primary = next(iter(extractors))
    bands = extractors[primary].bands
    observations = current_observations(catalogue, primary, tile_size, bands)
    wanted = None if labels is None else set(labels.tile_ids)
    tile_ids, features, segments = joined_features(catalogue, extractors, tile_size, wanted)
    if labels is not None:
        if not tile_ids:
            raise LabelError(
                f"{primary} has clearly seen none of the {len(labels)} labelled tiles: label tiles "
                "that it has, or ingest their area over a longer period."
            )
        labels = _of_tiles(labels, tile_ids)
    settings = settings_of(len(tile_ids))
    if labels is not None:
        assert isinstance(settings, AhclSettings)
        check_labelled_tiles(len(tile_ids), labels, settings)
    chosen = observations.set_index("tile_id", drop=False).loc[tile_ids].reset_index(drop=True)
    return TileTraining(
        catalogue, settings, extractors, features, segments, chosen, labels, tile_size, from_pixels
    )


def _of_tiles(labels: TileLabels, tile_ids: list[str]) -> TileLabels:
    """The labels of these tiles, which all have some, in their order."""
    wanted = set(tile_ids)
    kept = np.array([tile_id in wanted for tile_id in labels.tile_ids])
    ids = tuple(tile_id for tile_id in labels.tile_ids if tile_id in wanted)
    return align(replace(labels, tile_ids=ids, values=labels.values[kept]), tile_ids)[1]
