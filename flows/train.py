"""The train flow: from published observations to a published hashing model."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.feature_cache import compute_features
from data_catalog.observations import current_observations
from data_catalog.segments import collection_of as segments_of
from data_catalog.training import TileTraining, plan_training
from flows.artifacts import inline_address, loss_curves, show_text
from flows.assets import announce
from flows.bands import tell_of_passed_over
from flows.checks import check_train
from flows.labels import read_land_cover
from flows.learning import (
    extractor_for,
    extractors_for,
    labels_for,
    settings_for,
    training_sensors,
)
from flows.limits import gpus
from flows.parameters import TrainParameters
from flows.progress import EpochProgress, Progress
from flows.run_pages import address_of, tell_of_failure
from flows.tables import markdown_table
from rshash.ahcl import AhclTraining
from rshash.checkpoints import saved_epochs
from rshash.mrhash import MrHashTraining


@task(task_run_name="features of {sensor}", cache_policy=NO_CACHE)
def extract_features(parameters: TrainParameters, sensor: str) -> int:
    """Computes the features that are not cached yet; returns how many tiles have some."""
    catalogue = Catalogue.open(parameters.catalog)
    extractor, tile_size = extractor_for(parameters, sensor), parameters.tile_size
    observations = current_observations(catalogue, sensor, tile_size, extractor.bands)
    tell_of_passed_over(catalogue, sensor, tile_size, extractor.bands)
    with Progress(f"features {sensor}", len(observations)) as progress:
        compute_features(catalogue, sensor, observations, extractor, progress.advance)
    return len(observations)


@task(cache_policy=NO_CACHE)
def learn(parameters: TrainParameters) -> str:
    """Learns a model from cached features and publishes it with all that learning gave."""
    catalogue = Catalogue.open(parameters.catalog)
    training = _plan(catalogue, parameters)
    with training.reserved(), gpus(parameters.processes):
        for stage, epoch in saved_epochs(training.folder).items():
            print(f"  resuming after epoch {epoch} of stage {stage}", file=sys.stderr)
        with EpochProgress("learn") as progress:
            learned = training.run(progress.show, parameters.processes)
        model_id = training.publish(learned)
    _report(catalogue, model_id, training, learned)
    return model_id


def _plan(catalogue: Catalogue, parameters: TrainParameters) -> TileTraining:
    extractors = extractors_for(parameters)
    primary = parameters.sensors[0]
    return plan_training(
        catalogue,
        extractors,
        partial(settings_for, parameters, extractors[primary]),
        parameters.tile_size,
        labels=labels_for(catalogue, parameters, primary, parameters.tile_size),
        from_pixels=parameters.from_pixels,
    )


def _report(
    catalogue: Catalogue,
    model_id: str,
    training: TileTraining,
    learned: MrHashTraining | AhclTraining,
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "stage": stage,
            "epochs": len(losses),
            "first loss": f"{losses[0]:.4g}",
            "last loss": f"{losses[-1]:.4g}",
        }
        for stage, losses in learned.losses.items()
    ]
    parts = [
        f"# Model {model_id}",
        f"Learned from {learned.n_tiles:,} tiles of {', '.join(training.features)}.",
        f"![Losses]({inline_address(loss_curves(learned.losses), 'PNG')})",
        markdown_table(rows),
    ]
    if isinstance(learned, AhclTraining):
        parts.append(f"Classes: {', '.join(learned.classes)}.")
    parts.append(f"Published as {address_of(catalogue, MODELS, model_id)}.")
    if (in_use := catalogue.model_in_use()) != model_id:
        parts.append(next_steps(model_id, str(in_use)))
    summary = f"Model {model_id}, learned from {learned.n_tiles:,} tiles: the losses."
    show_text("training", "\n\n".join(parts) + "\n", summary)
    announce(catalogue, MODELS, [model_id], [segments_of(sensor) for sensor in training.features])
    if isinstance(learned, MrHashTraining):
        _show_clusters(catalogue, model_id)


def next_steps(model_id: str, in_use: str) -> str:
    """What can be done with a model that is not in use."""
    return (
        f"In use is {in_use}, as before. `rshash evaluate --model {model_id}` compares the two; "
        f"`rshash backfill --model {model_id}` switches over."
    )


def _show_clusters(catalogue: Catalogue, model_id: str) -> None:
    [labels] = catalogue.items(f"labels-{model_id}")
    picture = catalogue.asset_path(labels, "overview")
    caption = f"The clusters of {model_id}"
    show_text(
        "clusters",
        f"# {caption}\n\n![{caption}]({inline_address(picture)})\n\nIn full: `{picture}`. "
        f"Published as {address_of(catalogue, f'labels-{model_id}', labels.id)}.\n",
        f"{caption}: tiles of each.",
    )
    print(f"  picture of the clusters: {picture}", file=sys.stderr)


@flow(name="train", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])
def train(parameters: TrainParameters) -> str:
    """Learns a hashing model from the published tiles.

    The first one is in use at once. Any other is a candidate, and nothing else changes: see the
    flows `evaluate` and `backfill`.

    A sensor besides the primary one that has seen none of them takes no part. A training that was
    ended goes on at the next identical run.

    Returns:
        The model ID.

    Raises:
        CatalogueError: There is no catalogue, or it is not writable.
        FeatureError: There is no such feature extractor.
        LabelError: There are no such labels, or they are no good.
        SourceError: Land cover is asked for that the source catalogue does not have.
        TrainingError: There are no tiles, too few for the number of clusters, or the same training
            runs already.
    """
    check_train(parameters)
    sensors = training_sensors(parameters)
    if parameters.land_cover:
        read_land_cover(
            parameters.catalog,
            parameters.source,
            parameters.land_cover,
            sensors[0],
            parameters.tile_size,
        )
    for sensor in sensors:
        extract_features(parameters, sensor)
    return learn(parameters)
