"""What is refused before any work, for the command line and the flows alike."""

from __future__ import annotations

from data_catalog.areas import parse_area
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.grid import tiles_covering
from data_catalog.observations import current_observations
from flows.learning import extractor_for, mrhash_settings
from flows.parameters import NightlyParameters, RehashParameters, TrainParameters
from rshash.errors import ModelError
from rshash.mrhash_settings import check_training_set


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
        ModelError: The model makes codes of other tiles than those that the night fetches.
        TrainingError: There is no model yet, and the area has too few tiles to learn one.
    """
    catalogue = Catalogue.open_or_create(parameters.catalog)
    if parameters.model is not None or catalogue.latest_model_id() is not None:
        _check_model_fits(catalogue, parameters)
    else:
        extractors = [extractor_for(parameters, sensor) for sensor in parameters.sensors]
        tiles = tiles_covering(parse_area(parameters.area), parameters.tile_size)
        known = current_observations(catalogue, parameters.sensors[0], parameters.tile_size)
        check_training_set(
            len({tile.id for tile in tiles} | set(known["tile_id"])),
            mrhash_settings(parameters, extractors[0]),
        )


def _check_model_fits(catalogue: Catalogue, parameters: NightlyParameters) -> None:
    model_id = catalogue.model_id(parameters.model)
    model = catalogue.item(MODELS, model_id).properties
    sensor, tile_size = model["rshash:sensor"], model["rshash:tile_size"]
    if sensor not in parameters.sensors or tile_size != parameters.tile_size:
        raise ModelError(
            f"Model {model_id} makes codes of tiles of {tile_size} m of {sensor}, but the night "
            f"would fetch tiles of {parameters.tile_size} m of {', '.join(parameters.sensors)}: "
            "fetch the model's tiles, name another model, or learn one first with `rshash ingest` "
            "and `rshash train`."
        )
