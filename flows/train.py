"""The train flow: from published observations to a published hashing model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from data_catalog.catalogue import Catalogue
from data_catalog.feature_cache import joined_features, observation_features
from data_catalog.models import publish_training
from data_catalog.observations import current_observations
from flows.checks import check_train
from flows.learning import extractor_for, mrhash_settings
from flows.parameters import TrainParameters
from flows.progress import Progress
from flows.tables import markdown_table
from rshash.model import build_model
from rshash.mrhash import MrHashTraining, train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.progress import Progress as Epoch


@task(task_run_name="features of {sensor}", cache_policy=NO_CACHE)
def extract_features(parameters: TrainParameters, sensor: str) -> int:
    """Computes the features that are not cached yet; returns how many tiles have some."""
    catalogue = Catalogue.open(parameters.catalog)
    observations = current_observations(catalogue, sensor, parameters.tile_size)
    with Progress(f"features {sensor}", len(observations)) as progress:
        observation_features(
            catalogue, sensor, observations, extractor_for(parameters, sensor), progress.advance
        )
    return len(observations)


@task(cache_policy=NO_CACHE)
def learn(parameters: TrainParameters) -> str:
    """Learns a model from cached features and publishes it with its pseudo-labels."""
    catalogue = Catalogue.open(parameters.catalog)
    extractors = {sensor: extractor_for(parameters, sensor) for sensor in parameters.sensors}
    tile_ids, sources = joined_features(catalogue, extractors, parameters.tile_size)
    primary, *secondary = sources
    settings = mrhash_settings(parameters, extractors[primary])
    training = _train(list(sources.values()), settings)
    model = build_model(
        training,
        extractors[primary],
        primary_sensor=primary,
        secondary_sensors=secondary,
        tile_size=parameters.tile_size,
    )
    observations = current_observations(catalogue, primary, parameters.tile_size)
    learned_from = observations[observations["tile_id"].isin(tile_ids)]
    publish_training(catalogue, model, training, learned_from)
    _report_losses(model.model_id, list(sources), training)
    return model.model_id


def _train(sources: list[NDArray[np.float32]], settings: MrHashSettings) -> MrHashTraining:
    epochs = settings.autoencoder_epochs + settings.hashing_epochs
    with Progress("learn", epochs, "epochs") as progress:
        return train_mrhash(
            sources, settings, progress=lambda epoch: progress.advance(1, _loss_note(epoch))
        )


def _loss_note(epoch: Epoch) -> str:
    return f"{epoch.stage} loss {epoch.loss:.3g}"


def _report_losses(model_id: str, sensors: list[str], training: MrHashTraining) -> None:
    rows = [
        {
            "stage": stage,
            "epochs": len(losses),
            "first loss": f"{losses[0]:.4g}",
            "last loss": f"{losses[-1]:.4g}",
        }
        for stage, losses in training.losses.items()
    ]
    learned_from = f"Learned from {training.n_tiles:,} tiles of {', '.join(sensors)}."
    create_markdown_artifact(f"# Model {model_id}\n\n{learned_from}\n\n{markdown_table(rows)}\n")


@flow(name="train")
def train(parameters: TrainParameters) -> str:
    """Learns a hashing model from the published tiles.

    A sensor besides the primary one that has seen none of them takes no part.

    Returns:
        The model ID.

    Raises:
        CatalogueError: There is no catalogue, or no tiles of the primary sensor.
        TrainingError: There are too few tiles for the number of clusters.
    """
    check_train(parameters)
    for sensor in parameters.sensors:
        extract_features(parameters, sensor)
    return learn(parameters)
