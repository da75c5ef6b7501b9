"""What is refused before any work, for the command line and the flows alike."""

from __future__ import annotations

from data_catalog.areas import parse_area
from data_catalog.catalogue import Catalogue
from data_catalog.grid import tiles_covering
from data_catalog.observations import current_observations
from flows.learning import extractor_for, mrhash_settings
from flows.parameters import NightlyParameters, RehashParameters, TrainParameters
from rshash.mrhash import check_training_set


def check_train(parameters: TrainParameters) -> None:
    """Refuses a training that cannot work.

    Raises:
        CatalogueError: There is no catalogue.
        FeatureError: There is no such feature extractor.
        TrainingError: There are too few tiles for the number of clusters.
    """
    catalogue = Catalogue.open(parameters.catalog)
    extractors = [extractor_for(parameters, sensor) for sensor in parameters.sensors]
    tiles = current_observations(catalogue, parameters.sensors[0], parameters.tile_size)
    check_training_set(len(tiles), mrhash_settings(parameters, extractors[0]))


def check_rehash(parameters: RehashParameters) -> None:
    """Refuses to encode without a model.

    Raises:
        CatalogueError: There is no catalogue, or no such model in it.
    """
    Catalogue.open(parameters.catalog).model_id(parameters.model)


def check_nightly(parameters: NightlyParameters) -> None:
    """Refuses a night that could not end with codes.

    Raises:
        CatalogueError: The catalogue's folder holds something else, or has no such model.
        TrainingError: There is no model yet, and the area has too few tiles to learn one.
    """
    catalogue = Catalogue.open_or_create(parameters.catalog)
    if parameters.model is not None:
        check_rehash(parameters)
    elif catalogue.latest_model_id() is None:
        extractors = [extractor_for(parameters, sensor) for sensor in parameters.sensors]
        tiles = tiles_covering(parse_area(parameters.area), parameters.tile_size)
        known = current_observations(catalogue, parameters.sensors[0], parameters.tile_size)
        check_training_set(
            len({tile.id for tile in tiles} | set(known["tile_id"])),
            mrhash_settings(parameters, extractors[0]),
        )
